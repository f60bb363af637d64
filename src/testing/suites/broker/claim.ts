/** `publish` and `claim`: what is published is claimed once, in order. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { Batch, Delivery } from "../../../BrokerDriver.ts"
import * as defaults from "../../../internal/defaults.ts"
import * as Suite from "../Suite.ts"
import { envelope, type Fixture, idsOf, NO_ORDER, type Test } from "./fixture.ts"

/** Claims until that many messages are claimed. */
const claimAll = (t: Fixture, count: number) => {
  const found: Array<Delivery> = []
  const claim = Effect.map(t.claim(), (more) => found.push(...more) === count)
  return Effect.as(t.time.eventually(`${count} messages are claimed`, claim), found)
}

/** Registers the tests. */
export const claim = (test: Test): void => {
  describe("publish and claim", () => {
    test("a message is delivered as it was published", function* (t) {
      yield* t.publish("a", { task: "mail.send", body: "the body" })
      const {
        ageMillis,
        generation = 0,
        handle,
        incarnation = "",
        waitedMillis = ageMillis,
        ...rest
      } = yield* t.claimOne()
      assert.isNotEmpty(handle)
      assert.deepStrictEqual([incarnation, generation], ["", 0])
      assert.isAtLeast(ageMillis, 0)
      assert.isAtLeast(waitedMillis, 0)
      assert.deepStrictEqual(rest, { id: "a", task: "mail.send", queue: "default", body: "the body" })
    })

    test("a claim of an empty queue returns nothing, without waiting", function* (t) {
      assert.deepStrictEqual(yield* t.claim(), [])
    })

    test("a claim takes no more than it asks for", function* (t) {
      yield* t.driver.publish(Arr.map(Arr.range(1, 7), (n) => envelope(`id-${n}`)))
      const first = yield* t.claimIds(3)
      const second = yield* t.claimIds(3)
      const third = yield* t.claimIds(3)
      assert.deepStrictEqual([first.length, second.length, third.length], [3, 3, 1])
      assert.strictEqual(new Set([...first, ...second, ...third]).size, 7)
    })

    test("a claimed message is not claimed again", function* (t) {
      yield* t.publish("a")
      const first = yield* t.claimOne()
      yield* t.time.pass(1)
      assert.deepStrictEqual(yield* t.claim(), [])
      assert.isTrue(yield* t.ack(first))
    })

    test("a claim that is repeated under its claimId returns what it holds, if the driver supports it", function* (t) {
      const claim = (claimId: string, max: number, isRetry: boolean) =>
        t.driver.claim({
          queues: ["default"],
          max,
          leaseMillis: t.time.long,
          worker: "w",
          claimId,
          isRetry
        })
      yield* t.driver.publish([envelope("a"), envelope("b"), envelope("c")])
      const first = yield* claim("one", 2, false)
      assert.strictEqual(first.length, 2)
      const handles = (deliveries: ReadonlyArray<Delivery>) => deliveries.map(({ handle }) => handle)
      const second = yield* claim("one", 2, true)
      if (t.driver.capabilities.repeatableClaims !== true) {
        assert.notIncludeMembers(handles(first), handles(second))
        return
      }
      assert.deepStrictEqual(second, [
        { ...first[0]!, ageMillis: second[0]!.ageMillis },
        { ...first[1]!, ageMillis: second[1]!.ageMillis }
      ])
      assert.isTrue(yield* t.ack(first[0]!))
      const third = yield* claim("one", 3, true)
      assert.deepStrictEqual(handles(third).slice(0, 1), [first[1]!.handle], "an acked claim is not returned")
      assert.strictEqual(third.length, 2, "and another message takes its place")
      assert.deepStrictEqual(yield* claim("two", 3, true), [], "another claimId returns nothing")
    })

    test("queues are separate, and one claim can take from several", function* (t) {
      yield* t.driver.publish([
        envelope("a", { queue: "x" }),
        envelope("b", { queue: "y" }),
        envelope("c", { queue: "z" }),
        envelope("d", { queue: "x:y" })
      ])
      const from = (...queues: Batch<string>) => t.claim(100, t.time.long, queues)
      assert.deepStrictEqual(yield* from("nobody"), [])
      assert.deepStrictEqual(idsOf(yield* from("x")), ["a"])
      const others = yield* from("y", "nobody", "z", "y")
      assert.deepStrictEqual(others.map(({ id, queue }) => `${id} of ${queue}`).toSorted(), [
        "b of y",
        "c of z"
      ])
      assert.deepStrictEqual(idsOf(yield* from("x:y")), ["d"])
    })

    test("messages are claimed in the order in which they were published", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      const ids = Arr.map(Arr.range(1, 6), (n) => `id-${n}`)
      for (const id of ids) {
        yield* t.publish(id)
        yield* t.time.pass(0.1)
      }
      assert.deepStrictEqual([...(yield* t.claimIds(4)), ...(yield* t.claimIds(4))], ids)
    })

    test("higher priorities are claimed first, over all queues of a claim", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      if (t.driver.capabilities.priorities < 2) return yield* Suite.skip(context, "there is one priority")
      const send = (id: string, priority: number, queue: string) =>
        Effect.andThen(t.publish(id, { priority, queue }), t.time.pass(0.1))
      yield* send("low", 0, "x")
      yield* send("high", 255, "x")
      yield* send("low too", 0, "y")
      yield* send("high too", 255, "y")
      const claimed = [
        ...(yield* t.claim(1, t.time.long, ["x", "y"])),
        ...(yield* t.claim(100, t.time.long, ["y", "x"]))
      ]
      assert.deepStrictEqual(idsOf(claimed), ["high", "high too", "low", "low too"])
    })

    test("the default priority of tasks is ordered among the others, for delayed messages too", function* (t, context) {
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      if (t.driver.capabilities.priorities < 256)
        return yield* Suite.skip(context, "the driver distinguishes fewer priorities")
      const usual = { priority: defaults.priority }
      yield* t.publish("delayed", { ...usual, delayMillis: t.time.units(1) })
      yield* t.time.pass(2)
      yield* t.publish("first", usual)
      yield* t.publish("low", { priority: defaults.priority - 1 })
      yield* t.publish("second", usual)
      yield* t.publish("high", { priority: defaults.priority + 1 })
      yield* t.publish("third", usual)
      assert.strictEqual((yield* t.counts).ready, 6)
      assert.deepStrictEqual(yield* t.claimIds(3), ["high", "delayed", "first"])
      const second = yield* t.claimOne()
      assert.strictEqual(second.id, "second")
      yield* t.release(second, { preserveDueTime: true })
      const rest = yield* t.claimIds()
      assert.sameMembers(rest, ["third", "second", "low"])
      assert.strictEqual(rest[2], "low")
    })

    test("all 256 priorities are distinguished", function* (t, context) {
      const { priorities } = t.driver.capabilities
      if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
      if (priorities < 256) return yield* Suite.skip(context, `there are ${priorities} priorities`)
      for (const priority of [1, 255, 0, 254, 128, 127]) {
        yield* t.publish(`${priority}`, { priority })
      }
      assert.deepStrictEqual(yield* t.claimIds(), ["255", "254", "128", "127", "1", "0"])
    })

    test("messages with the same id are both delivered", function* (t) {
      yield* t.driver.publish([envelope("a", { body: "first" }), envelope("a", { body: "second" })])
      yield* t.publish("b")
      const claimed = yield* t.claim()
      assert.strictEqual(new Set(claimed.map(({ handle }) => handle)).size, claimed.length)
      const bodies = claimed.flatMap(({ body, id }) => (id === "a" ? [body] : []))
      assert.sameMembers(bodies, ["first", "second"])
    })

    test("an ack leaves a later message of the same id alone", function* (t) {
      yield* t.publish("a", { body: "first" })
      const first = yield* t.claimOne()
      yield* t.publish("a", { body: "second" })
      assert.isTrue(yield* t.ack(first))
      assert.strictEqual((yield* t.claimOne()).body, "second")
    })

    test("a large batch is delivered completely", function* (t) {
      const ids = Arr.map(Arr.range(1, 1000), (n) => `id-${n}`)
      yield* t.driver.publish(Arr.map(ids, (id) => envelope(id)))
      const claimed = yield* t.claimIds(2000)
      assert.deepStrictEqual(claimed.toSorted(), ids.toSorted())
    })

    test("concurrent claims share the messages without duplicates", function* (t) {
      const ids = Arr.map(Arr.range(1, 400), (n) => `id-${n}`)
      yield* t.driver.publish(Arr.map(ids, (id) => envelope(id)))
      const claimer = Effect.gen(function* () {
        const mine: Array<string> = []
        for (;;) {
          const claimed = yield* t.claimIds(7)
          if (claimed.length === 0) return mine
          assert.isAtMost(claimed.length, 7)
          mine.push(...claimed)
        }
      })
      const claimed = yield* Effect.all(Arr.replicate(claimer, 20), { concurrency: "unbounded" })
      assert.deepStrictEqual(claimed.flat().toSorted(), ids.toSorted())
    })

    test("a body with the largest payload is delivered unchanged", function* (t) {
      const body = "a".repeat(Suite.maxBytesOf(t.driver) + Suite.MESSAGE_HEAD)
      yield* t.driver.publish([envelope("a", { body }), envelope("b")])
      const found = yield* claimAll(t, 2)
      assert.isTrue(found.some((delivery) => delivery.body === body))
    })

    test("a batch of two mebi characters is published", function* (t) {
      const body = "€".repeat(64 * 1024)
      yield* t.driver.publish(Arr.makeBy(32, (n) => envelope(String(n), { body })))
      const found = yield* claimAll(t, 32)
      assert.isTrue(found.every((delivery) => delivery.body === body))
    })

    for (const [what, text] of Suite.texts) {
      test(`${what} in a body is delivered unchanged`, function* (t) {
        yield* t.publish("a", { body: text })
        assert.isTrue((yield* t.claimOne()).body === text)
      })
    }
  })
}
