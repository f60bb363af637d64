/**
 * The conformance suite of `BackendDriver`: one test for each behaviour that the port requires.
 *
 * ```ts
 * import { BackendSuite } from "chicory/testing/suites"
 *
 * BackendSuite.suite("my store", { make: makeMyBackend, live: true })
 * ```
 *
 * @module
 */
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import { answerSize } from "./backend/answerSize.ts"
import { atMostOnce } from "./backend/atMostOnce.ts"
import { bodies } from "./backend/bodies.ts"
import { cancel } from "./backend/cancel.ts"
import { crashes } from "./backend/crashes.ts"
import { create } from "./backend/create.ts"
import { deadLetters } from "./backend/deadLetters.ts"
import { documents } from "./backend/documents.ts"
import { expiry } from "./backend/expiry.ts"
import { makeFixture, type Test } from "./backend/fixture.ts"
import { forget } from "./backend/forget.ts"
import { hints } from "./backend/hints.ts"
import { history } from "./backend/history.ts"
import { incarnations } from "./backend/incarnations.ts"
import { queues } from "./backend/queues.ts"
import { renew } from "./backend/renew.ts"
import { reopen } from "./backend/reopen.ts"
import { reservations } from "./backend/reservations.ts"
import { retention } from "./backend/retention.ts"
import { settle } from "./backend/settle.ts"
import { start } from "./backend/start.ts"
import { withdraw } from "./backend/withdraw.ts"
import { workers } from "./backend/workers.ts"
import * as Suite from "./Suite.ts"

/**
 * How the suite is run on a driver.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = Suite.Options<BackendDriver>

/**
 * Registers the tests of a backend driver, in a `describe` that bears `name`.
 *
 * **Details**
 *
 * Tests of hints are skipped where the driver's `capabilities.hints` is `false`, those of histories where it has no
 * `readHistory`, those of `queue` and `dueAt` where its records lack them, and those of documents where it has none.
 *
 * @see {@link Options}
 * @category suites
 * @since 0.1.0
 */
export const suite = (name: string, options: Options): void => {
  const register = Suite.make(options, ({ read }) => read(["nobody"]))
  const test: Test = (title, body) =>
    register(title, (driver, time, context) => Effect.gen(() => body(makeFixture(driver, time), context)))

  describe(`${name}: backend`, () => {
    create(test)
    reservations(test)
    queues(test)
    start(test)
    renew(test)
    settle(test)
    history(test)
    crashes(test)
    atMostOnce(test)
    cancel(test)
    withdraw(test)
    expiry(test)
    retention(test)
    forget(test)
    incarnations(test)
    reopen(test)
    deadLetters(test)
    bodies(test)
    answerSize(test)
    hints(test)
    workers(test)
    documents(test)
  })
}
