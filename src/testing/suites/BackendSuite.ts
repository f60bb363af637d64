/**
 * The conformance suite of `BackendDriver`: what the port promises, one behaviour a test.
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
import { crashes } from "./backend/crashes.ts"
import { records } from "./backend/create.ts"
import { letters } from "./backend/deadLetters.ts"
import { ends } from "./backend/ends.ts"
import { subject, type Test } from "./backend/fixture.ts"
import { hints } from "./backend/hints.ts"
import { runs } from "./backend/runs.ts"
import { workers } from "./backend/workers.ts"
import * as Suite from "./Suite.ts"

/** How the suite is run on a driver. */
export type Options = Suite.Options<BackendDriver>

/** Registers the tests of a driver, in a `describe` of that name. */
export const suite = (name: string, options: Options): void => {
  const register = Suite.make(options, ({ read }) => read(["nobody"]))
  const test: Test = (title, body) =>
    register(title, (driver, time, context) => Effect.gen(() => body(subject(driver, time), context)))

  describe(`${name}: backend`, () => {
    records(test)
    runs(test)
    crashes(test)
    ends(test)
    letters(test)
    hints(test)
    workers(test)
  })
}
