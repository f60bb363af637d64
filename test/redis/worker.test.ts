import { describe } from "@effect/vitest"
import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithRedis } from "./server.ts"
import { temporaryDrivers } from "./temporary.ts"

// these tests mostly wait, in real time
await describeWithRedis("conformance", () => {
  describe.concurrent("of workers", () => {
    WorkerSuite.suite("redis, fused", { make: temporaryDrivers(), live: true, unit: "500 millis" })
    WorkerSuite.suite("redis", {
      make: Effect.map(temporaryDrivers(), ({ backend: { fusion: _, ...backend }, broker }) => ({
        backend,
        broker
      })),
      live: true,
      unit: "500 millis"
    })
  })
})
