import { isFullRun } from "../support/fullRun.ts"
import { postgres } from "./ownStores.ts"
import { suite } from "./serverSuite.ts"

suite(postgres("on"))
if (isFullRun) suite(postgres("off"))
