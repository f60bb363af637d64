import { full } from "../support/fullRun.ts"
import { rabbitmqWithRedis } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(rabbitmqWithRedis("always"), [killed])
if (full) suite(rabbitmqWithRedis("never"), [killed])
