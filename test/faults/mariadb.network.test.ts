import { suite } from "./networkSuite.ts"
import { mariadb } from "./ownStores.ts"

suite(mariadb())
