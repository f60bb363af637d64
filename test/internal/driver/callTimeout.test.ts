import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit } from "effect"
import * as CallLimit from "../../../src/internal/driver/callTimeout.ts"
import { begin, ended, pass, stillWaits } from "../../support/memoryFixture.ts"

const limit = CallLimit.make(Duration.seconds(5), (cause) => cause)

describe("the limit of a call", () => {
  it.effect("lets through what is answered in time", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      assert.strictEqual(yield* bounded(Effect.succeed("at once")), "at once")
      const later = yield* begin(bounded(Effect.delay(Effect.succeed("later"), "4 seconds")))
      yield* pass("4 seconds")
      assert.deepStrictEqual(ended(later), Exit.succeed("later"))
    })
  )

  it.effect("fails each call after its own time, whatever became of the others", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      const silent = yield* begin(Effect.flip(bounded(Effect.never)))
      yield* pass("2 seconds")
      const answered = yield* begin(bounded(Effect.delay(Effect.succeed(1), "1 second")))
      const other = yield* begin(Effect.flip(bounded(Effect.never)))
      yield* pass("2999 millis")
      assert.deepStrictEqual(ended(answered), Exit.succeed(1))
      stillWaits(silent)
      yield* pass("1 millis")
      const failed = ended(silent)
      assert(failed !== undefined && Exit.isSuccess(failed))
      assert.include(failed.value.message, "did not answer within 5s")
      stillWaits(other)
      yield* pass("2 seconds")
      assert(Exit.isSuccess(ended(other)))
    })
  )

  it.effect("interrupts the call that is given up, and the one whose caller is interrupted", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      let interrupted = 0
      const call: Effect.Effect<never> = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => interrupted++)
      )
      const late = yield* begin(Effect.flip(bounded(call)))
      const left = yield* begin(bounded(call))
      left.interruptUnsafe()
      yield* pass("1 millis")
      assert.strictEqual(interrupted, 1)
      yield* pass("5 seconds")
      assert.strictEqual(interrupted, 2)
      assert(Exit.isSuccess(ended(late)))
    })
  )

  it.effect("fails as the call does", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      const answer = yield* Deferred.make<string>()
      const waiting = yield* begin(bounded(Deferred.await(answer)))
      yield* Deferred.die(answer, "a bug")
      yield* pass("1 millis")
      assert.isTrue(Exit.hasDies(ended(waiting)))
    })
  )
})
