/** Tests with clocks that are ten minutes fast or slow: only the store's clock decides. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { AsyncResult, Task } from "chicory"
import { DateTime, Duration, Effect, Exit, Option, type Scope } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import { eventually, timed } from "../support/storeFixture.ts"
import * as Audit from "./audit.ts"
import type { Deployment, WorkerProcess } from "./deployments.ts"
import { ShortRetention, Job, payload } from "./job.ts"
import * as SkewedClock from "./skewedClock.ts"
import * as System from "./system.ts"

const SKEW_MILLIS = Duration.toMillis("10 minutes")
const TIMEOUT = 20_000

/** A task that only producers know, as in a rolling deploy. */
const UnknownTask = Task.make("stranger")

/** Registers the tests: the producer's clock is fast, the workers' clocks are fast or slow. */
export const suite = (
  makeDeployment: Effect.Effect<Deployment<WorkerProcess>, unknown, Scope.Scope>,
  leaseMillis: number
): void => {
  const ahead = { worker: { lease: leaseMillis }, clockAheadMillis: SKEW_MILLIS }
  const behind = { worker: { lease: leaseMillis }, clockAheadMillis: -SKEW_MILLIS }

  const test = (
    name: string,
    isShort: boolean,
    body: (
      system: System.System<WorkerProcess>
    ) => Effect.Effect<void, unknown, Scope.Scope | NodeServices.NodeServices>
  ): void =>
    it.live.skipIf(!isFullRun && !isShort)(
      name,
      () =>
        Effect.gen(function* () {
          const system = yield* System.make(yield* makeDeployment)
          yield* body(system)
        }).pipe(SkewedClock.provide(SKEW_MILLIS), Effect.provide(NodeServices.layer)),
      120_000
    )

  test("guarantee 6: a delay and an absolute due time by the producer's clock are kept", false, (system) =>
    Effect.gen(function* () {
      yield* system.startWorker(behind)
      const assertDelayed = (enqueue: typeof delayed) =>
        Effect.gen(function* () {
          const [millis] = yield* Effect.flatMap(enqueue, (handle) =>
            AsyncResult.get(handle, { timeout: TIMEOUT })
          ).pipe(Effect.provideContext(system.services), timed)
          assert.isAtLeast(millis, 1_400)
        })
      const delayed = Job.delay(payload(1), { delay: "1500 millis" })
      const timedByClock = Effect.flatMap(DateTime.now, (now) =>
        Job.delay(payload(1), { at: DateTime.add(now, { milliseconds: 1_500 }) })
      )
      yield* assertDelayed(delayed)
      yield* assertDelayed(timedByClock)
    })
  )

  test(
    "guarantee 6: a lease is held while it is renewed and taken over when its worker is killed",
    true,
    (system) =>
      Effect.gen(function* () {
        const workers = [yield* system.startWorker(ahead), yield* system.startWorker(behind)]
        yield* system.enqueue([payload(1, { millis: 3 * leaseMillis })])
        const kept = yield* system.audit
        Audit.verify(kept)
        assert.strictEqual(kept.reruns, 0)

        const takeOver = Effect.gen(function* () {
          const [handle] = yield* system.enqueue([payload(2, { millis: 0.8 * leaseMillis })])
          const begun = (worker: WorkerProcess) =>
            worker.events.some((event) => event._tag === "Began" && event.id === handle!.taskId)
          yield* eventually(Effect.sync(() => workers.some(begun)))
          const victim = workers.find(begun)!
          yield* victim.kill
          system.halted(victim)
          yield* eventually(Effect.sync(() => workers.every((worker) => worker === victim || begun(worker))))
        })
        // from the enqueue on, and with its pauses: a busy victim may not have renewed its lease before it was killed
        const begunAt = performance.now()
        const [millis] = yield* timed(takeOver)
        assert.isAtLeast(performance.now() - begunAt, leaseMillis, "not before the lease has run out")
        assert.isBelow(millis, TIMEOUT)
        Audit.verify(yield* system.audit)
      })
  )

  test("guarantee 6: a waiting task expires at its expiry and not before", false, (system) =>
    Effect.gen(function* () {
      const enqueue = (expires: Duration.Input) => Job.delay(payload(1), { expires })
      const [millis, exit] = yield* Effect.flatMap(enqueue("1500 millis"), (handle) =>
        AsyncResult.exit(handle, { timeout: TIMEOUT })
      ).pipe(timed, Effect.provideContext(system.services))
      const failed = Option.getOrUndefined(Exit.findErrorOption(exit))
      assert.strictEqual(failed?.reason._tag, "Expired")
      assert.isAtLeast(millis, 1_400)
      for (const off of [ahead, behind]) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const handle = yield* enqueue("5 minutes")
            yield* system.startWorker(off)
            yield* AsyncResult.get(handle, { timeout: TIMEOUT })
          })
        ).pipe(Effect.provideContext(system.services))
      }
    })
  )

  test("guarantees 6 and 11: a result is kept for its retention and removed after it", false, (system) =>
    Effect.gen(function* () {
      yield* system.startWorker(ahead)
      yield* system.startWorker(behind)
      const kept = yield* Job.delay(payload(1))
      yield* AsyncResult.get(kept, { timeout: TIMEOUT })
      const short = yield* ShortRetention.delay()
      yield* AsyncResult.get(short, { timeout: TIMEOUT })
      assert.isTrue(Option.isSome(yield* AsyncResult.poll(short)))
      yield* eventually(Effect.map(AsyncResult.poll(short), Option.isNone))
      assert.isTrue(Option.isSome(yield* AsyncResult.poll(kept)))
    }).pipe(Effect.provideContext(system.services))
  )

  test("guarantee 6: an unknown task is not rejected before its grace period has passed", false, (system) =>
    Effect.gen(function* () {
      const unknownTask = yield* Effect.provideContext(UnknownTask.delay(), system.services)
      for (const off of [ahead, behind]) yield* system.startWorker(off)
      // whatever was claimed before these has been released
      for (const n of [1, 2, 3]) {
        yield* system.enqueue([payload(n, { millis: 500 })])
        Audit.verify(yield* system.audit)
      }
      const state = AsyncResult.state(unknownTask)
      assert.strictEqual(yield* Effect.provideContext(state, system.services), "PENDING")
      yield* Effect.provideContext(AsyncResult.cancel(unknownTask), system.services)
    })
  )
}
