import { isFullRun } from "../support/fullRun.ts"
import { mariadb } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(mariadb("1"))
if (isFullRun) suite(mariadb("2"), [killed])
if (isFullRun) suite(mariadb("0"))
