import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Broker, Task } from "chicory"
import { Effect, Fiber, Logger, References, Schema } from "effect"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { advance, assertPending, exitOf, fork, reasonOf } from "./support/memoryFixture.ts"
import { withoutAges } from "./support/withoutAges.ts"

const Mail = Task.make("mail", { payload: Schema.Int, success: Schema.Int })

/** A backend whose `withdraw` waits for a second, and then fails as often as is said. */
const make = (failures: number, isPermanent = false) => {
  let left = failures
  return MemoryFixture.make({
    backend: (driver) => ({
      isPermanent: () => isPermanent,
      withdraw: (messages) =>
        Effect.suspend(() => (left-- > 0 ? Effect.fail("away") : driver.withdraw(messages))).pipe(
          Effect.delay("1 second")
        )
    })
  })
}

describe("a purge of a queue", () => {
  it.effect("ends the tasks of the messages that it has removed, before it is interrupted", () =>
    Effect.gen(function* () {
      const on = yield* make(0)
      yield* Effect.gen(function* () {
        const handles = yield* Mail.delayAll(Array.from({ length: 300 }, (_, n) => n))
        const purging = yield* fork(Broker.purge("default"))
        assert.strictEqual(on.count("withdraw"), 1)
        const interrupting = yield* fork(Fiber.interrupt(purging))
        assertPending(interrupting)
        yield* advance("1 second")
        exitOf(interrupting)
        const states = yield* Effect.forEach(handles, AsyncResult.state)
        assert.strictEqual(states.filter((state) => state === "FAILURE").length, 256)
        assert.deepStrictEqual(withoutAges(yield* Broker.counts(["default"])), [
          { ready: 44, delayed: 0, claimed: 0 }
        ])
        // a task that is pending has its message
        assert.strictEqual(states.filter((state) => state === "PENDING").length, 44)
      }).pipe(Effect.provideContext(on.context))
    })
  )

  it.effect("tries again to end the tasks, while the backend may come back", () =>
    Effect.gen(function* () {
      const on = yield* make(3)
      yield* Effect.gen(function* () {
        const handle = yield* Mail.delay(1)
        const waiting = yield* fork(Effect.flip(AsyncResult.get(handle)))
        const purging = yield* fork(Broker.purge("default"))
        yield* advance("10 seconds")
        assert.strictEqual(yield* Fiber.join(purging), 1)
        assert.strictEqual(on.count("withdraw"), 4)
        assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Cancelled")
      }).pipe(Effect.provideContext(on.context))
    })
  )

  for (const [isPermanent, why] of [
    [false, "a backend that stays away"],
    [true, "an error that is not retryable"]
  ] as const) {
    it.effect(`fails with ${why}, removes no more, and names the tasks that it leaves`, () =>
      Effect.gen(function* () {
        const on = yield* make(Infinity, isPermanent)
        const logged: Array<unknown> = []
        const logger = Logger.make(({ fiber }) => {
          logged.push(fiber.getRef(References.CurrentLogAnnotations)["tasks"])
        })
        yield* Effect.gen(function* () {
          const handles = yield* Mail.delayAll(Array.from({ length: 300 }, (_, n) => n))
          const purging = yield* fork(Effect.flip(Broker.purge("default")))
          for (let second = 0; second < 30; second++) yield* advance("1 second")
          const error = exitOf(purging)
          assert(error._tag === "Success" && error.value._tag === "BackendError")
          if (isPermanent) assert.strictEqual(on.count("withdraw"), 1)
          assert.deepStrictEqual(withoutAges(yield* Broker.counts(["default"])), [
            { ready: 44, delayed: 0, claimed: 0 }
          ])
          const ids = handles.map(({ taskId }) => taskId)
          const [left] = logged
          assert(Array.isArray(left))
          assert.sameMembers(left, ids.slice(0, 256))
          assert.strictEqual(yield* AsyncResult.cancel(handles[0]!), "Cancelled")
        }).pipe(Effect.provideContext(on.context), Effect.provide(Logger.layer([logger])))
      })
    )
  }
})
