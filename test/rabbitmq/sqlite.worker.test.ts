import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { temporaryDrivers } from "../sqlite/temporary.ts"
import { describeWithRabbit } from "./server.ts"
import { temporaryDriver } from "./temporary.ts"

// they mostly wait, in real time
await describeWithRabbit("conformance", () => {
  describe.concurrent("of workers", () => {
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
