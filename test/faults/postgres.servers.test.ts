import { full } from "../support/fullRun.ts"
import { postgres } from "./ownStores.ts"
import { suite } from "./serverSuite.ts"

suite(postgres("on"))
if (full) suite(postgres("off"))
