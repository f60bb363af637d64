/**
 * The conformance suite of a backend and a broker together, with workers over both: what the library guarantees,
 * one behaviour a test.
 *
 * ```ts
 * import { WorkerSuite } from "chicory/testing/suites"
 *
 * WorkerSuite.suite("my stores", { make: Effect.all({ backend: makeMyBackend, broker: makeMyBroker }), live: true })
 * ```
 *
 * @module
 */
import { describe } from "@effect/vitest"
import { Effect, References } from "effect"
import * as Suite from "./Suite.ts"
import { cancelling } from "./worker/cancel.ts"
import { execution } from "./worker/execution.ts"
import type { Drivers } from "./worker/faults.ts"
import { inSteps, subject, type Test } from "./worker/fixture.ts"
import { generations } from "./worker/generations.ts"
import { leases } from "./worker/leases.ts"
import { limits } from "./worker/limits.ts"
import { outages } from "./worker/outages.ts"
import { poison } from "./worker/poison.ts"
import { retention } from "./worker/retention.ts"
import { retries } from "./worker/retries.ts"
import { settling } from "./worker/settle.ts"
import { slots } from "./worker/slots.ts"
import { fencing } from "./worker/supersededRuns.ts"
import { tasks } from "./worker/tasks.ts"
import { ends } from "./worker/waiters.ts"
import { messageOnly } from "./worker/withoutBackend.ts"

export type { Drivers } from "./worker/faults.ts"

/** How the suite is run on a pairing. */
export type Options = Suite.Options<Drivers>

/** Registers the tests of a pairing, in a `describe` of that name. */
export const suite = (name: string, options: Options): void => {
  const register = Suite.make(options, ({ broker }) => broker.counts(["default"]))
  const test: Test = (title, body) =>
    register(title, (drivers, time, context) =>
      Effect.flatMap(subject(drivers, options.live === true ? time : inSteps(time)), (on) =>
        Effect.provideContext(
          Effect.gen(() => body(on, context)),
          on.context
        )
      ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
    )

  describe(`${name}: worker`, () => {
    execution(test)
    generations(test)
    fencing(test)
    settling(test)
    ends(test)
    cancelling(test)
    leases(test)
    slots(test)
    poison(test)
    outages(test)
    limits(test)
    retention(test)
    retries(test)
    tasks(test)
    messageOnly(test)
  })
}
