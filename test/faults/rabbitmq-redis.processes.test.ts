import { Effect } from "effect"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { describeWithRedis, isUp } from "../redis/server.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

/** Both servers are needed; a skipped suite names the missing one. */
const describeWithBoth = (await Effect.runPromise(isUp)) ? describeWithRabbit : describeWithRedis

const location = TemporaryLocations.rabbitmq(TemporaryLocations.redis)

await describeWithBoth("processes on RabbitMQ, with results in Redis", () =>
  ProcessSuites.suite("rabbitmq, redis", location, TemporaryLocations.withShortHeartbeat(location))
)
