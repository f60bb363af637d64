import { suite } from "./networkSuite.ts"
import { rabbitmqWithRedis } from "./ownStores.ts"

suite(rabbitmqWithRedis())
