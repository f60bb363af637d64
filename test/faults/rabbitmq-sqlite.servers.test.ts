import { rabbitmqWithSqlite } from "./ownStores.ts"
import { suite } from "./serverSuite.ts"

suite(rabbitmqWithSqlite)
