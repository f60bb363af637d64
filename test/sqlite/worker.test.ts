import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { temporaryDrivers } from "./temporary.ts"

// concurrent, as the tests mostly wait in real time
describe.concurrent("conformance", () => {
  WorkerSuite.suite("sqlite, fused", { make: temporaryDrivers, live: true, unit: "500 millis" })
  WorkerSuite.suite("sqlite", {
    make: Effect.map(temporaryDrivers, ({ backend: { fusion: _, ...backend }, broker }) => ({
      backend,
      broker
    })),
    live: true,
    unit: "500 millis"
  })
})
