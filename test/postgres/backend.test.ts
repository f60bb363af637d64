import { describe } from "@effect/vitest"
import { BackendSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithPostgres, temporaryDrivers } from "./server.ts"

// concurrent, since the tests mostly wait in real time
await describeWithPostgres("postgres: conformance", () => {
  describe.concurrent("of the backend", () => {
    BackendSuite.suite("postgres", {
      make: Effect.map(temporaryDrivers(), ({ backend }) => backend),
      live: true
    })
    BackendSuite.suite("postgres, without notifications", {
      make: Effect.map(temporaryDrivers({ notify: false }), ({ backend }) => backend),
      live: true
    })
  })
})
