/**
 * The conformance suite of a backend and a broker together, with workers over both: one test for each behaviour that the
 * library guarantees. Suites and titles bear the numbers of the guarantees in `docs/guarantees.md`.
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
import { atLeastOnce } from "./worker/atLeastOnce.ts"
import { atMostOnce } from "./worker/atMostOnce.ts"
import { cancel } from "./worker/cancel.ts"
import { crashes } from "./worker/crashes.ts"
import { decode } from "./worker/decode.ts"
import { events } from "./worker/events.ts"
import { failures } from "./worker/failures.ts"
import type { Drivers } from "./worker/faults.ts"
import { inSmallSteps, makeFixture, type Test } from "./worker/fixture.ts"
import { history } from "./worker/history.ts"
import { incarnations } from "./worker/incarnations.ts"
import { leases } from "./worker/leases.ts"
import { limits } from "./worker/limits.ts"
import { logs } from "./worker/logs.ts"
import { poison } from "./worker/poison.ts"
import { replay } from "./worker/replay.ts"
import { retention } from "./worker/retention.ts"
import { retries } from "./worker/retries.ts"
import { secrets } from "./worker/secrets.ts"
import { settle } from "./worker/settle.ts"
import { shutdown } from "./worker/shutdown.ts"
import { slots } from "./worker/slots.ts"
import { supersededRuns } from "./worker/supersededRuns.ts"
import { tasks } from "./worker/tasks.ts"
import { terminalStates } from "./worker/terminalStates.ts"
import { tracing } from "./worker/tracing.ts"
import { unknownOutcomes } from "./worker/unknownOutcomes.ts"
import { unknownTasks } from "./worker/unknownTasks.ts"
import { waiterOutages } from "./worker/waiterOutages.ts"
import { waiters } from "./worker/waiters.ts"
import { withoutBackend } from "./worker/withoutBackend.ts"
import { workerOutages } from "./worker/workerOutages.ts"
import { workers } from "./worker/workers.ts"

export type { Drivers } from "./worker/faults.ts"

/**
 * How the suite is run on a pairing.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = Suite.Options<Drivers>

/**
 * Registers the tests of a pairing, in a `describe` that bears `name`. The log is silent while they run.
 *
 * **When to use**
 *
 * For a new driver, once beside a driver of this library that is known to be good, and once without `fusion` if the
 * driver has it: the steps that fusion joins have to work one by one as well.
 *
 * @see {@link Options}
 * @category suites
 * @since 0.1.0
 */
export const suite = (name: string, options: Options): void => {
  const register = Suite.make(options, ({ broker }) => broker.counts(["default"]))
  const test: Test = (title, body) =>
    register(title, (drivers, time, context) =>
      Effect.flatMap(makeFixture(drivers, options.live === true ? time : inSmallSteps(time)), (t) =>
        Effect.provideContext(
          Effect.gen(() => body(t, context)),
          t.context
        )
      ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
    )

  describe(`${name}: worker`, () => {
    atLeastOnce(test)
    atMostOnce(test)
    terminalStates(test)
    replay(test)
    incarnations(test)
    supersededRuns(test)
    settle(test)
    waiters(test)
    cancel(test)
    leases(test)
    slots(test)
    shutdown(test)
    poison(test)
    crashes(test)
    workerOutages(test)
    waiterOutages(test)
    unknownOutcomes(test)
    limits(test)
    decode(test)
    retention(test)
    retries(test)
    failures(test)
    secrets(test)
    history(test)
    tasks(test)
    unknownTasks(test)
    workers(test)
    logs(test)
    tracing(test)
    events(test)
    withoutBackend(test)
  })
}
