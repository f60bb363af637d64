import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { describeWithRabbit } from "./server.ts"
import { temporaryDriver } from "./temporary.ts"

// concurrent, as the tests mostly wait in real time
await describeWithRabbit("conformance", () => {
  describe.concurrent("broker", () => {
    BrokerSuite.suite("rabbitmq", { make: temporaryDriver(), live: true })
  })
})
