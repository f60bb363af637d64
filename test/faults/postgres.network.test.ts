import { suite } from "./networkSuite.ts"
import { postgres } from "./ownStores.ts"

suite(postgres())
