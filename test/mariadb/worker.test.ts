import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithMariadb, temporaryDrivers } from "./server.ts"

// concurrent, since the tests mostly wait in real time
await describeWithMariadb("mariadb: conformance", () => {
  describe.concurrent("of workers", () => {
    WorkerSuite.suite("mariadb, fused", { make: temporaryDrivers(), live: true, unit: "500 millis" })
    WorkerSuite.suite("mariadb", {
      make: Effect.map(temporaryDrivers(), ({ backend: { fusion: _, ...backend }, broker }) => ({
        backend,
        broker
      })),
      live: true,
      unit: "500 millis"
    })
  })
})
