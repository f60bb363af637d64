import { full } from "../support/extent.ts"
import { postgres } from "./ownStores.ts"
import { suite } from "./serverSuite.ts"

suite(postgres("on"))
if (full) suite(postgres("off"))
