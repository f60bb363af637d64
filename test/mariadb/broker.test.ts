import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithMariadb, temporaryDrivers } from "./server.ts"

// concurrent, since the tests mostly wait in real time
await describeWithMariadb("mariadb: conformance", () => {
  describe.concurrent("of the broker", () => {
    BrokerSuite.suite("mariadb", {
      make: Effect.map(temporaryDrivers(), ({ broker }) => broker),
      live: true
    })
  })
})
