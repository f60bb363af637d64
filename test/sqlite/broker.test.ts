import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { temporaryDrivers } from "./temporary.ts"

// concurrent, as the tests mostly wait in real time
describe.concurrent("conformance", () => {
  BrokerSuite.suite("sqlite", { make: Effect.map(temporaryDrivers, ({ broker }) => broker), live: true })
})
