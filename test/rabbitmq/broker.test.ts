import { describe } from "@effect/vitest"
import { BrokerSuite } from "chicory/testing/suites"
import { describeWithRabbit } from "./server.ts"
import { temporaryDriver } from "./temporary.ts"

// they mostly wait, in real time
await describeWithRabbit("conformance", () => {
  describe.concurrent("of the broker", () => {
    BrokerSuite.suite("rabbitmq", { make: temporaryDriver(), live: true })
  })
})
