import { isFullRun } from "../support/fullRun.ts"
import { redis } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(redis("always"))
if (isFullRun) suite(redis("everysec"), [killed])
suite(redis("never"))
