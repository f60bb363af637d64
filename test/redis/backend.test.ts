import { describe } from "@effect/vitest"
import { BackendSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithRedis } from "./server.ts"
import { temporaryDrivers } from "./temporary.ts"

// they mostly wait, in real time; several shards are for clusters, where they are tested too
await describeWithRedis("conformance", () => {
  describe.concurrent("of the backend", () => {
    BackendSuite.suite("redis", {
      make: Effect.map(temporaryDrivers(), ({ backend }) => backend),
      live: true
    })
  })
})
