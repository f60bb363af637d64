import { assert, describe, it } from "@effect/vitest"
import { DeadLetters, Task } from "chicory"
import { Effect, Schema } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"

const Work = Task.make("work", { payload: { n: Schema.Number } })

/** A worker over a store that starts no task whose id is bad, and what it ran. */
const make = Effect.fnUntraced(function* (options: { readonly parks: boolean }) {
  const fixture = yield* MemoryFixture.make({
    hints: false,
    backend: (driver) => ({
      isPermanent: () => true,
      start: (starts) =>
        starts.some(({ id }) => id === "bad") ? Effect.fail("it holds no such id") : driver.start(starts),
      parkMessage: (letters) => (options.parks ? driver.parkMessage(letters) : Effect.fail("it is full"))
    })
  })
  const ran: Array<number> = []
  const work = MemoryFixture.startWorker(
    fixture,
    Work,
    Work.toLayer(({ n }) => Effect.sync(() => void ran.push(n))),
    { lease: "10 seconds" }
  )
  const send = (n: number, id: string) => Work.delay({ n }, { id })
  yield* Effect.forEach(
    ["a", "b", "c", "bad", "d"],
    (id, n) => Effect.provideContext(send(n, id), fixture.context),
    { discard: true }
  )
  return { ran, fixture, work }
})

describe("startDeliveries", () => {
  it.effect("dead-letters a message that cannot be started and starts the others", () =>
    Effect.gen(function* () {
      const { ran, fixture, work } = yield* make({ parks: true })
      yield* work
      yield* MemoryFixture.advance("1 second")
      assert.sameMembers(ran, [0, 1, 2, 4])
      const [letter] = yield* Effect.provideContext(DeadLetters.list(), fixture.context)
      assert.strictEqual(letter!.queue, "default")
      assert.strictEqual(letter!.reason._tag, "PayloadInvalid")
      assert.include(letter!.reason.message, "it holds no such id")
      assert.include(String(letter!.raw), `"id":"bad"`)
      const [counts] = yield* fixture.broker.counts(["default"])
      assert.deepStrictEqual(counts, { ready: 0, delayed: 0, claimed: 0 })
    })
  )

  it.effect("redelivers a message whose dead letter cannot be written", () =>
    Effect.gen(function* () {
      const { ran, fixture, work } = yield* make({ parks: false })
      yield* work
      yield* MemoryFixture.advance("1 second")
      assert.sameMembers(ran, [0, 1, 2, 4])
      const [counts] = yield* fixture.broker.counts(["default"])
      assert.deepStrictEqual(counts, { ready: 0, delayed: 0, claimed: 1 })
      const tried = fixture.count("parkMessage")
      yield* MemoryFixture.advance("11 seconds")
      assert.isAbove(fixture.count("parkMessage"), tried)
    })
  )
})
