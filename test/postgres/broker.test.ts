import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithPostgres, temporaryDrivers } from "./server.ts"

// concurrent, since the tests mostly wait in real time
await describeWithPostgres("postgres: conformance", () => {
  describe.concurrent("of the broker", () => {
    BrokerSuite.suite("postgres", {
      make: Effect.map(temporaryDrivers(), ({ broker }) => broker),
      live: true
    })
    BrokerSuite.suite("postgres, without notifications", {
      make: Effect.map(temporaryDrivers({ notify: false }), ({ broker }) => broker),
      live: true
    })
  })
})
