import { suite } from "./networkSuite.ts"
import { redis } from "./ownStores.ts"

suite(redis())
