import { full } from "../support/extent.ts"
import { redis } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(redis("always"))
if (full) suite(redis("everysec"), [killed])
suite(redis("never"))
