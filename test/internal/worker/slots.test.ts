import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Slot, Slots } from "../../../src/internal/worker/slots.ts"
import { fork, exitOf, advance, assertPending, flush } from "../../support/memoryFixture.ts"

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
})

describe("the slot of a handler", () => {
  const held = Effect.gen(function* () {
    const slots = new Slots(1)
    yield* slots.take(1)
    return { slots, place: new Slot(slots) }
  })

  it.effect("is free while its handler waits", () =>
    Effect.gen(function* () {
      const { place, slots } = yield* held
      const waiting = yield* fork(place.without(Effect.sleep("1 second")))
      assert.strictEqual(taken(slots), 0)
      yield* advance("1 second")
      assert.isTrue(Exit.isSuccess(exitOf(waiting)))
      assert.strictEqual(taken(slots), 1)
    })
  )

  it.effect("is taken again before its handler continues", () =>
    Effect.gen(function* () {
      const { place, slots } = yield* held
      const waiting = yield* fork(place.without(Effect.sleep("1 second")))
      yield* slots.take(1)
      yield* advance("1 second")
      assertPending(waiting)
      slots.give(1)
      yield* flush
      assert.isTrue(Exit.isSuccess(exitOf(waiting)))
      assert.strictEqual(taken(slots), 1)
    })
  )

  it.effect("is counted once when several fibers of its handler wait", () =>
    Effect.gen(function* () {
      const { place, slots } = yield* held
      for (const seconds of [1, 2, 3]) yield* fork(place.without(Effect.sleep(seconds * 1000)))
      assert.strictEqual(taken(slots), 0)
      yield* advance("2 seconds")
      assert.strictEqual(taken(slots), 0)
      yield* advance("1 second")
      assert.strictEqual(taken(slots), 1)
    })
  )

  it.effect("stays free for a fiber that begins to wait while another is about to continue", () =>
    Effect.gen(function* () {
      const { place, slots } = yield* held
      const first = yield* fork(place.without(Effect.sleep("1 second")))
      yield* slots.take(1)
      yield* advance("1 second")
      assertPending(first)
      const second = yield* fork(place.without(Effect.sleep("1 second")))
      slots.give(1)
      yield* flush
      assert.isTrue(Exit.isSuccess(exitOf(first)))
      assert.strictEqual(taken(slots), 0)
      yield* advance("1 second")
      assert.isTrue(Exit.isSuccess(exitOf(second)))
      assert.strictEqual(taken(slots), 1)
    })
  )

  it.effect("is taken again when its handler is interrupted", () =>
    Effect.gen(function* () {
      const { place, slots } = yield* held
      const waiting = yield* fork(place.without(Effect.never))
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(taken(slots), 1)
    })
  )
})
