import { full } from "../support/fullRun.ts"
import { redis } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(redis("always"))
if (full) suite(redis("everysec"), [killed])
suite(redis("never"))
