import { describe } from "@effect/vitest"
import { BackendSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { describeWithMariadb, temporaryDrivers } from "./server.ts"

// concurrent, since the tests mostly wait in real time
await describeWithMariadb("mariadb: conformance", () => {
  describe.concurrent("of the backend", () => {
    BackendSuite.suite("mariadb", {
      make: Effect.map(temporaryDrivers(), ({ backend }) => backend),
      live: true
    })
  })
})
