/** The conformance tests of large values, for stores on a server that takes less than the library does by itself. */
import { afterAll, describe } from "@effect/vitest"
import type { WorkerSuite } from "chicory/testing/suites"
import { Effect, Exit, References, Scope } from "effect"
import { bodies } from "../../src/testing/suites/backend/bodies.ts"
import * as BackendFixture from "../../src/testing/suites/backend/fixture.ts"
import { claim } from "../../src/testing/suites/broker/claim.ts"
import * as BrokerFixture from "../../src/testing/suites/broker/fixture.ts"
import * as Suite from "../../src/testing/suites/Suite.ts"
import * as WorkerFixture from "../../src/testing/suites/worker/fixture.ts"
import { limits } from "../../src/testing/suites/worker/limits.ts"

type Drivers = WorkerSuite.Drivers

/** Starts a server once, for all tests of the calling `describe`. */
export const sharedServer = <S>(start: Effect.Effect<S, unknown, Scope.Scope>): Effect.Effect<S, unknown> => {
  const scope = Scope.makeUnsafe()
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  return Effect.runSync(Effect.cached(Scope.provide(start, scope)))
}

/** Registers the tests. */
export const limitsSuite = (make: Effect.Effect<Drivers, unknown, Scope.Scope>): void => {
  const options = { live: true, unit: "500 millis" } as const
  const ofBackend = Suite.make({ ...options, make: Effect.map(make, ({ backend }) => backend) }, ({ read }) =>
    read(["missing"])
  )
  const ofBroker = Suite.make({ ...options, make: Effect.map(make, ({ broker }) => broker) }, ({ counts }) =>
    counts(["default"])
  )
  const ofWorker = (drivers: typeof make): WorkerFixture.Test => {
    const register = Suite.make({ ...options, make: drivers }, ({ broker }) => broker.counts(["default"]))
    return (title, body) =>
      register(title, (made, time, context) =>
        Effect.flatMap(WorkerFixture.makeFixture(made, time), (t) =>
          Effect.provideContext(
            Effect.gen(() => body(t, context)),
            t.context
          )
        ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
      )
  }
  describe.concurrent("conformance", () => {
    bodies((title, body) =>
      ofBackend(title, (driver, time, context) =>
        Effect.gen(() => body(BackendFixture.makeFixture(driver, time), context))
      )
    )
    claim((title, body) =>
      ofBroker(title, (driver, time, context) =>
        Effect.gen(() => body(BrokerFixture.makeFixture(driver, time), context))
      )
    )
    describe("fused", () => limits(ofWorker(make)))
    describe("not fused", () =>
      limits(
        ofWorker(Effect.map(make, ({ backend: { fusion: _, ...backend }, broker }) => ({ backend, broker })))
      ))
  })
}
