import { full } from "../support/extent.ts"
import { rabbitmqWithRedis } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(rabbitmqWithRedis("always"), [killed])
if (full) suite(rabbitmqWithRedis("never"), [killed])
