/** The size of claims: one of large messages takes some at a time. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Stream } from "effect"
import type { Delivery } from "../../../BrokerDriver.ts"
import { maxMessageBytes } from "../../../driver/index.ts"
import * as Suite from "../Suite.ts"
import { envelope, type Fixture, idsOf, NO_LEASE, type Test } from "./fixture.ts"

const IN_PROCESS = "a store of this process alone carries nothing"
const TOO_LARGE = "the store takes no message of that size"

/** Registers the tests. */
export const answerSize = (test: Test): void => {
  describe("claims of large messages", () => {
    const ids = Arr.map(Arr.range(1, 5), (n) => `id-${n}`)

    const publishLarge = (t: Fixture) =>
      t.driver.publish(Arr.map(ids, (id) => envelope(id, { body: Suite.largeText(t.driver) })))

    test("a claim takes some of them, and the next claims take the rest", function* (t, context) {
      if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
      yield* publishLarge(t)
      const found: Array<string> = []
      for (;;) {
        const claimed = yield* t.claim()
        if (claimed.length === 0) break
        Suite.expectBoundedAnswer(
          t.driver,
          claimed.map(({ body }) => body.length)
        )
        found.push(...idsOf(claimed))
      }
      assert.deepStrictEqual(found.sort(), ids)
    })

    test("a consumer is woken again for those that a claim left", function* (t) {
      yield* publishLarge(t)
      const found: Array<string> = []
      yield* Stream.runForEach(t.driver.ready(["default"], 100), () =>
        Effect.map(t.claim(), (claimed) => void found.push(...idsOf(claimed)))
      ).pipe(Effect.forkScoped)
      yield* t.time.eventually(
        "all are claimed",
        Effect.sync(() => found.length === ids.length)
      )
      assert.deepStrictEqual(found.sort(), ids)
    })

    test("a message that is larger than any of this library is delivered without its body", function* (t, context) {
      if (t.driver.capabilities.reliableHints === true) return yield* Suite.skip(context, IN_PROCESS)
      const body = "x".repeat(maxMessageBytes + 1)
      if (body.length > (t.driver.capabilities.maxBytes ?? Infinity))
        return yield* Suite.skip(context, TOO_LARGE)
      yield* t.publish("large", { task: "mail.send", body })
      yield* t.publish("small")
      const found = new Map<string, Delivery>()
      const claimed = Effect.map(t.claim(), (more) => {
        for (const delivery of more) found.set(delivery.id ?? "", delivery)
        return found.size === 2
      })
      yield* t.time.eventually("both are claimed", claimed)
      const { body: carried, id, oversizedBytes, task } = found.get("large")!
      assert.deepStrictEqual(
        [id, task, oversizedBytes, carried.length],
        ["large", "mail.send", body.length, 0]
      )
      assert.strictEqual(found.get("small")?.body, envelope("small").body)
      assert.isTrue(yield* t.ack(found.get("large")!))
    })
  })
}
