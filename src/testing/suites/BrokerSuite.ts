/**
 * The conformance suite of `BrokerDriver`: one test for each behaviour that the port requires.
 *
 * ```ts
 * import { BrokerSuite } from "chicory/testing/suites"
 *
 * BrokerSuite.suite("my broker", { make: makeMyBroker, live: true })
 * ```
 *
 * @module
 */
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import type { BrokerDriver } from "../../BrokerDriver.ts"
import { answerSize } from "./broker/answerSize.ts"
import { claim } from "./broker/claim.ts"
import { counts } from "./broker/counts.ts"
import { delays } from "./broker/delays.ts"
import { makeFixture, type Test } from "./broker/fixture.ts"
import { leases } from "./broker/leases.ts"
import { ready } from "./broker/ready.ts"
import { release } from "./broker/release.ts"
import { setAside } from "./broker/setAside.ts"
import * as Suite from "./Suite.ts"

/**
 * How the suite is run on a driver.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = Suite.Options<BrokerDriver>

/**
 * Registers the tests of a broker driver, in a `describe` that bears `name`.
 *
 * **Details**
 *
 * Tests of optional capabilities (leases of the store, order, priorities, claims by task) are skipped where the driver's `capabilities`
 * lack them.
 *
 * @see {@link Options}
 * @category suites
 * @since 0.1.0
 */
export const suite = (name: string, options: Options): void => {
  const register = Suite.make(options, ({ counts }) => counts(["default"]))
  const test: Test = (title, body) =>
    register(title, (driver, time, context) => Effect.gen(() => body(makeFixture(driver, time), context)))

  describe(`${name}: broker`, () => {
    claim(test)
    answerSize(test)
    delays(test)
    leases(test)
    release(test)
    setAside(test)
    counts(test)
    ready(test)
  })
}
