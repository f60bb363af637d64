import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { temporaryDriver } from "../rabbitmq/temporary.ts"
import { describeWithRedis, isUp } from "../redis/server.ts"
import { temporaryDrivers } from "../redis/temporary.ts"

/** Requires both servers. A skipped suite names the one that is missing. */
const describeWithBoth = (await Effect.runPromise(isUp)) ? describeWithRabbit : describeWithRedis

// concurrent, as the tests mostly wait in real time
await describeWithBoth("conformance", () => {
  describe.concurrent("workers", () => {
    WorkerSuite.suite("rabbitmq, with results in redis", {
      make: Effect.all({
        backend: Effect.map(temporaryDrivers(), ({ backend: { fusion: _, ...backend } }) => backend),
        broker: temporaryDriver()
      }),
      live: true,
      unit: "500 millis"
    })
  })
})
