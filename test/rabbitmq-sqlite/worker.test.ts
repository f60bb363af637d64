import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { temporaryDriver } from "../rabbitmq/temporary.ts"
import { temporaryDrivers } from "../sqlite/temporary.ts"

// concurrent, as the tests mostly wait in real time
await describeWithRabbit("conformance", () => {
  describe.concurrent("workers", () => {
    WorkerSuite.suite("rabbitmq, with results in sqlite", {
      make: Effect.all({
        backend: Effect.map(temporaryDrivers, ({ backend: { fusion: _, ...backend } }) => backend),
        broker: temporaryDriver()
      }),
      live: true,
      unit: "500 millis"
    })
  })
})
