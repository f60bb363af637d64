import { describe } from "@effect/vitest"
import { BackendSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithRedis } from "./server.ts"
import { temporaryDrivers } from "./temporary.ts"

// these tests mostly wait, in real time; cluster.suites.test.ts tests several shards
await describeWithRedis("conformance", () => {
  describe.concurrent("of the backend", () => {
    BackendSuite.suite("redis", {
      make: Effect.map(temporaryDrivers(), ({ backend }) => backend),
      live: true
    })
  })
})
