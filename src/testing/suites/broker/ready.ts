/** `ready`: wakes a worker when there may be something to claim. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Stream } from "effect"
import type { Batch, Delivery } from "../../../BrokerDriver.ts"
import * as Suite from "../Suite.ts"
import { type Fixture, idsOf, NO_LEASE, type Test } from "./fixture.ts"

/** Registers the tests. */
export const ready = (test: Test): void => {
  describe("ready", () => {
    /** Subscribes to `ready`, claims at each wakeup, and collects the deliveries. */
    const consume = Effect.fnUntraced(function* (t: Fixture, queues: Batch<string> = ["default"]) {
      const got: Array<Delivery> = []
      yield* Stream.runForEach(t.driver.ready(queues, 100), () =>
        Effect.map(t.claim(100, t.time.long, queues), (claimed) => void got.push(...claimed))
      ).pipe(Effect.forkScoped)
      const expectMessage = (id: string) =>
        t.time.eventually(
          `${id} is claimed`,
          Effect.sync(() => got.some((delivery) => delivery.id === id))
        )
      return { got, expectMessage }
    })

    /** Like `consume`, and waits until a wakeup has arrived. */
    const consumeActively = Effect.fnUntraced(function* (t: Fixture, queues: Batch<string> = ["default"]) {
      const consumer = yield* consume(t, queues)
      yield* t.time.eventually(
        "a message wakes a consumer",
        Effect.suspend(() => Effect.as(t.publish("probe", { queue: queues[0] }), consumer.got.length > 0))
      )
      return consumer
    })

    test("wakes a consumer for a published message", function* (t) {
      const { expectMessage } = yield* consumeActively(t)
      yield* t.time.pass(2)
      yield* t.publish("a")
      yield* expectMessage("a")
    })

    test("wakes a consumer for any of its queues", function* (t) {
      const { expectMessage } = yield* consumeActively(t, ["x", "y"])
      yield* t.publish("a", { queue: "y" })
      yield* expectMessage("a")
      yield* t.publish("b", { queue: "x" })
      yield* expectMessage("b")
    })

    test("wakes a consumer for a message that waits already", function* (t) {
      yield* t.publish("a")
      const { expectMessage } = yield* consume(t)
      yield* expectMessage("a")
    })

    test("wakes a consumer at the end of a delay", function* (t) {
      yield* t.publish("a", { delayMillis: t.time.units(4) })
      const { expectMessage } = yield* consumeActively(t)
      yield* t.publish("b", { delayMillis: t.time.units(2) })
      yield* expectMessage("b")
      yield* expectMessage("a")
    })

    test("wakes a consumer at the end of each of several delays in short succession", function* (t) {
      const { expectMessage, got } = yield* consumeActively(t)
      const delays = [2, 2.25, 2.5, 2.75]
      const publishAndExpect = (prefix: string) =>
        Effect.andThen(
          Effect.forEach(delays, (delay) =>
            t.publish(`${prefix}${delay}`, { delayMillis: t.time.units(delay) })
          ),
          Effect.forEach(delays, (delay) => expectMessage(`${prefix}${delay}`))
        )
      // a store may have to declare what a delay needs when the delay is first used, which makes that message late
      yield* publishAndExpect("first ")
      got.length = 0
      yield* publishAndExpect("")
      for (const { ageMillis, id } of got) assert.isBelow(ageMillis, t.time.units(2), `${id} came late`)
    })

    test("wakes a consumer for a released message", function* (t) {
      const { expectMessage, got } = yield* consumeActively(t)
      yield* t.publish("a")
      yield* expectMessage("a")
      const claimed = got.find(({ id }) => id === "a")
      assert(claimed !== undefined)
      got.length = 0
      yield* t.release(claimed, { afterMillis: t.time.units(1) })
      yield* expectMessage("a")
    })

    test("wakes a consumer when a lease lapses", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* t.publish("a")
      yield* t.claimOne(t.time.units(4))
      const { expectMessage } = yield* consumeActively(t)
      yield* expectMessage("a")
    })

    test("wakes several consumers, and each message goes to one of them", function* (t) {
      const consumers = [yield* consumeActively(t), yield* consume(t)]
      const ids = Arr.map(Arr.range(1, 50), (n) => `id-${n}`)
      yield* Effect.forEach(ids, (id) => t.publish(id), { concurrency: 5, discard: true })
      const got = () => consumers.flatMap((consumer) => idsOf(consumer.got)).filter((id) => id !== "probe")
      yield* t.time.eventually(
        "all messages are claimed",
        Effect.sync(() => got().length >= ids.length)
      )
      assert.deepStrictEqual(got().toSorted(), ids.toSorted())
    })
  })
}
