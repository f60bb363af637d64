import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithPostgres, temporaryDrivers } from "./server.ts"

// concurrent, since the tests mostly wait in real time
await describeWithPostgres("postgres: conformance", () => {
  describe.concurrent("of workers", () => {
    WorkerSuite.suite("postgres, fused", { make: temporaryDrivers(), live: true, unit: "500 millis" })
    WorkerSuite.suite("postgres", {
      make: Effect.map(temporaryDrivers(), ({ backend: { fusion: _, ...backend }, broker }) => ({
        backend,
        broker
      })),
      live: true,
      unit: "500 millis"
    })
  })
})
