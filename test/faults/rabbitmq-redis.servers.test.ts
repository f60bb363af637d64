import { isFullRun } from "../support/fullRun.ts"
import { rabbitmqWithRedis } from "./ownStores.ts"
import { killed, suite } from "./serverSuite.ts"

suite(rabbitmqWithRedis("always"), [killed])
if (isFullRun) suite(rabbitmqWithRedis("never"), [killed])
