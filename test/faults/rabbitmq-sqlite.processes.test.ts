import { describeWithRabbit } from "../rabbitmq/server.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

const place = TemporaryPlaces.rabbitmq(TemporaryPlaces.sqlite)

await describeWithRabbit("processes on RabbitMQ, with results in SQLite", () =>
  ProcessSuites.suite("rabbitmq, sqlite", place, TemporaryPlaces.impatient(place))
)
