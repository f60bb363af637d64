import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithMariadb, temporaryDrivers } from "./server.ts"

// they mostly wait, in real time
await describeWithMariadb("conformance", () => {
  describe.concurrent("of the broker", () => {
    BrokerSuite.suite("mariadb", {
      make: Effect.map(temporaryDrivers(), ({ broker }) => broker),
      live: true
    })
  })
})
