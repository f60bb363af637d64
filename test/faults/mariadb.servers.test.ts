import { full } from "../support/fullRun.ts"
import { mariadb } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(mariadb("1"))
if (full) suite(mariadb("2"), [killed])
if (full) suite(mariadb("0"))
