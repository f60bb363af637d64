import { suite } from "./networkSuite.ts"
import { rabbitmqWithSqlite } from "./ownStores.ts"

suite(rabbitmqWithSqlite)
