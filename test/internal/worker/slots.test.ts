import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Slots } from "../../../src/internal/worker/slots.ts"
import { fork, exitOf, assertPending, flush } from "../../support/memoryFixture.ts"

const taken = ({ free, total }: Slots): number => total - free

describe("slots", () => {
  it.effect("take takes the free slots, at most the requested number", () =>
    Effect.gen(function* () {
      const slots = new Slots(5)
      assert.strictEqual(yield* slots.take(3), 3)
      assert.strictEqual(taken(slots), 3)
      assert.strictEqual(yield* slots.take(3), 2)
      assert.strictEqual(taken(slots), 5)
    })
  )

  it.effect("take waits until a slot is free", () =>
    Effect.gen(function* () {
      const slots = new Slots(1)
      yield* slots.take(1)
      const waiting = yield* fork(slots.take(1))
      assertPending(waiting)
      slots.give(1)
      yield* flush
      assert.deepStrictEqual(exitOf(waiting), Exit.succeed(1))
    })
  )

  it.effect("what a waiter leaves goes to the next waiter", () =>
    Effect.gen(function* () {
      const slots = new Slots(2)
      yield* slots.take(2)
      const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(slots.take(1)))
      yield* flush
      slots.give(2)
      yield* flush
      assert.strictEqual(waiting.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 2)
      assert.strictEqual(taken(slots), 2)
    })
  )

  it.effect("an interrupted waiter takes no slot", () =>
    Effect.gen(function* () {
      const slots = new Slots(1)
      yield* slots.take(1)
      const waiting = yield* fork(slots.take(1))
      yield* Fiber.interrupt(waiting)
      slots.give(1)
      yield* flush
      assert.strictEqual(taken(slots), 0)
    })
  )

  it.effect("a run that resumes goes before claims", () =>
    Effect.gen(function* () {
      const slots = new Slots(1)
      yield* slots.take(1)
      const claiming = yield* fork(slots.take(1))
      let resumed = 0
      slots.request(() => resumed++)
      slots.request(() => resumed++)()
      slots.give(1)
      yield* flush
      assert.strictEqual(resumed, 1)
      assertPending(claiming)
      slots.give(1)
      yield* flush
      assert.deepStrictEqual(exitOf(claiming), Exit.succeed(1))
      assert.strictEqual(resumed, 1, "the withdrawn request takes no slot")
    })
  )

  it.effect("nothing is taken while runs are beyond the total", () =>
    Effect.gen(function* () {
      const slots = new Slots(1)
      yield* slots.take(1)
      slots.takeOver()
      const claiming = yield* fork(slots.take(1))
      slots.give(1)
      yield* flush
      assertPending(claiming)
      slots.give(1)
      yield* flush
      assert.deepStrictEqual(exitOf(claiming), Exit.succeed(1))
    })
  )
})
