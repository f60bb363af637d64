import { describe } from "@effect/vitest"
import { BackendSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { temporaryDrivers } from "./temporary.ts"

// concurrent, as the tests mostly wait in real time
describe.concurrent("conformance", () => {
  BackendSuite.suite("sqlite", { make: Effect.map(temporaryDrivers, ({ backend }) => backend), live: true })
})
