import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithRedis } from "./server.ts"
import { temporaryDrivers } from "./temporary.ts"

// these tests mostly wait, in real time
await describeWithRedis("conformance", () => {
  describe.concurrent("of the broker", () => {
    BrokerSuite.suite("redis", { make: Effect.map(temporaryDrivers(), ({ broker }) => broker), live: true })
  })
})
