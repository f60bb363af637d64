import { describeWithRabbit } from "../rabbitmq/server.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

const location = TemporaryLocations.rabbitmq(TemporaryLocations.sqlite)

await describeWithRabbit("processes on RabbitMQ, with results in SQLite", () =>
  ProcessSuites.suite("rabbitmq, sqlite", location, TemporaryLocations.withShortHeartbeat(location))
)
