/**
 * The conformance suite of `BrokerDriver`: what the port promises, one behaviour a test.
 *
 * ```ts
 * import { BrokerSuite } from "chicory/testing/suites"
 *
 * BrokerSuite.suite("my broker", { make: makeMyBroker, live: true })
 * ```
 *
 * @module
 */
import { assert, describe, type TestContext } from "@effect/vitest"
import { Array as Arr, Effect, type Scope, Stream } from "effect"
import type { BrokerDriver, Delivery, Envelope, Release, Batch } from "../../BrokerDriver.ts"
import * as defaults from "../../internal/defaults.ts"
import * as Suite from "./Suite.ts"

/** How the suite is run on a driver. */
export type Options = Suite.Options<BrokerDriver>

const envelope = (id: string, more?: Partial<Envelope>): Envelope => ({
  id,
  task: "mail",
  queue: "default",
  priority: 0,
  delayMillis: 0,
  body: `{"message":"${id}"}`,
  ...more
})

const idsOf = (deliveries: ReadonlyArray<Delivery>): Array<string> =>
  deliveries.map(({ id }) => id ?? "a message without an id")

const NO_LEASE = "a connection holds the claims of this driver"
const NO_ORDER = "a queue of this driver lies in several parts, each with its own order"

/** The driver's operations, with the answers that a test goes on from checked. */
const subject = (driver: BrokerDriver, time: Suite.Time) => {
  const publish = (id: string, more?: Partial<Envelope>) => driver.publish([envelope(id, more)])
  const claim = (max = 100, leaseMillis = time.long, queues: Batch<string> = ["default"]) =>
    driver.claim({ queues, max, leaseMillis, worker: "w" })
  const claimIds = (max?: number) => Effect.map(claim(max), idsOf)
  const claimOne = (leaseMillis?: number) =>
    Effect.map(claim(1, leaseMillis), ([delivery]) => {
      assert(delivery !== undefined, "there is a message to claim")
      return delivery
    })
  /** A claim whose lease has run out. */
  const lapse = Effect.tap(claimOne(time.units(1)), () => time.pass(2))
  return {
    driver,
    time,
    publish,
    claim,
    claimIds,
    claimOne,
    lapse,
    /** Whether a lapse can be played: not where a connection holds the claims. */
    leases: driver.capabilities.lease === "store",
    ordered: driver.capabilities.ordered !== false,
    ack: ({ handle }: Delivery) => Suite.only(driver.ack([handle])),
    renew: ({ handle }: Delivery, leaseMillis = time.long) => Suite.only(driver.renew([handle], leaseMillis)),
    release: ({ handle }: Delivery, more?: Partial<Release>) =>
      driver.release([{ handle, afterMillis: 0, ...more }]),
    counts: Suite.only(driver.counts(["default"]))
  }
}

type Subject = ReturnType<typeof subject>

/** Registers the tests of a driver, in a `describe` of that name. */
export const suite = (name: string, options: Options): void => {
  const register = Suite.make(options, ({ counts }) => counts(["default"]))
  const test = (
    title: string,
    body: (on: Subject, context: TestContext) => Effect.fn.Return<void, unknown, Scope.Scope>
  ): void =>
    register(title, (driver, time, context) => Effect.gen(() => body(subject(driver, time), context)))

  describe(`${name}: broker`, () => {
    describe("publish and claim", () => {
      test("a message comes as it was sent", function* (on) {
        yield* on.publish("a", { task: "mail.send", body: "the body" })
        const {
          ageMillis,
          expiresMillis: _,
          generation = 0,
          handle,
          waitedMillis = ageMillis,
          ...rest
        } = yield* on.claimOne()
        assert.isNotEmpty(handle)
        assert.strictEqual(generation, 0)
        assert.isAtLeast(ageMillis, 0)
        assert.isAtLeast(waitedMillis, 0)
        assert.deepStrictEqual(rest, { id: "a", task: "mail.send", queue: "default", body: "the body" })
      })

      test("a claim of what is empty answers nothing, and does not wait", function* (on) {
        assert.deepStrictEqual(yield* on.claim(), [])
      })

      test("a claim takes no more than it asks for", function* (on) {
        yield* on.driver.publish(Arr.map(Arr.range(1, 7), (n) => envelope(`id-${n}`)))
        const first = yield* on.claimIds(3)
        const second = yield* on.claimIds(3)
        const third = yield* on.claimIds(3)
        assert.deepStrictEqual([first.length, second.length, third.length], [3, 3, 1])
        assert.strictEqual(new Set([...first, ...second, ...third]).size, 7)
      })

      test("a message that is claimed is not claimed again", function* (on) {
        yield* on.publish("a")
        const first = yield* on.claimOne()
        yield* on.time.pass(1)
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.isTrue(yield* on.ack(first))
      })

      test("a claim that is made again under its name is answered again, by drivers that can", function* (on) {
        const claim = (claimId: string, max: number, isRetry: boolean) =>
          on.driver.claim({
            queues: ["default"],
            max,
            leaseMillis: on.time.long,
            worker: "w",
            claimId,
            isRetry
          })
        yield* on.driver.publish([envelope("a"), envelope("b"), envelope("c")])
        const first = yield* claim("one", 2, false)
        assert.strictEqual(first.length, 2)
        const handles = (deliveries: ReadonlyArray<Delivery>) => deliveries.map(({ handle }) => handle)
        const second = yield* claim("one", 2, true)
        if (on.driver.capabilities.repeatableClaims !== true) {
          assert.notIncludeMembers(handles(first), handles(second))
          return
        }
        assert.deepStrictEqual(second, [
          { ...first[0]!, ageMillis: second[0]!.ageMillis },
          { ...first[1]!, ageMillis: second[1]!.ageMillis }
        ])
        assert.isTrue(yield* on.ack(first[0]!))
        const third = yield* claim("one", 3, true)
        assert.deepStrictEqual(handles(third).slice(0, 1), [first[1]!.handle], "what is acked is over")
        assert.strictEqual(third.length, 2, "and there is room for another")
        assert.deepStrictEqual(yield* claim("two", 3, true), [], "no other claim is answered")
      })

      test("queues are apart, and one claim can take from several", function* (on) {
        yield* on.driver.publish([
          envelope("a", { queue: "x" }),
          envelope("b", { queue: "y" }),
          envelope("c", { queue: "z" }),
          envelope("d", { queue: "x:y" })
        ])
        const from = (...queues: Batch<string>) => on.claim(100, on.time.long, queues)
        assert.deepStrictEqual(yield* from("nobody"), [])
        assert.deepStrictEqual(idsOf(yield* from("x")), ["a"])
        const others = yield* from("y", "nobody", "z", "y")
        assert.deepStrictEqual(others.map(({ id, queue }) => `${id} of ${queue}`).toSorted(), [
          "b of y",
          "c of z"
        ])
        assert.deepStrictEqual(idsOf(yield* from("x:y")), ["d"])
      })

      test("messages come in the order in which they were sent", function* (on, context) {
        if (!on.ordered) return yield* Suite.skip(context, NO_ORDER)
        const ids = Arr.map(Arr.range(1, 6), (n) => `id-${n}`)
        for (const id of ids) {
          yield* on.publish(id)
          yield* on.time.pass(0.1)
        }
        assert.deepStrictEqual([...(yield* on.claimIds(4)), ...(yield* on.claimIds(4))], ids)
      })

      test("higher priorities come first, over the queues that are asked", function* (on, context) {
        if (!on.ordered) return yield* Suite.skip(context, NO_ORDER)
        if (on.driver.capabilities.priorities < 2) return yield* Suite.skip(context, "there is one priority")
        const send = (id: string, priority: number, queue: string) =>
          Effect.andThen(on.publish(id, { priority, queue }), on.time.pass(0.1))
        yield* send("low", 0, "x")
        yield* send("high", 255, "x")
        yield* send("low too", 0, "y")
        yield* send("high too", 255, "y")
        const claimed = [
          ...(yield* on.claim(1, on.time.long, ["x", "y"])),
          ...(yield* on.claim(100, on.time.long, ["y", "x"]))
        ]
        assert.deepStrictEqual(idsOf(claimed), ["high", "high too", "low", "low too"])
      })

      test("a task's default priority has its place among the others, delayed or not", function* (on, context) {
        if (!on.ordered) return yield* Suite.skip(context, NO_ORDER)
        if (on.driver.capabilities.priorities < 256)
          return yield* Suite.skip(context, "the driver tells fewer priorities apart")
        const usual = { priority: defaults.priority }
        yield* on.publish("delayed", { ...usual, delayMillis: on.time.units(1) })
        yield* on.time.pass(2)
        yield* on.publish("first", usual)
        yield* on.publish("low", { priority: defaults.priority - 1 })
        yield* on.publish("second", usual)
        yield* on.publish("high", { priority: defaults.priority + 1 })
        yield* on.publish("third", usual)
        assert.strictEqual((yield* on.counts).ready, 6)
        assert.deepStrictEqual(yield* on.claimIds(3), ["high", "delayed", "first"])
        const second = yield* on.claimOne()
        assert.strictEqual(second.id, "second")
        yield* on.release(second, { preserveDueTime: true })
        assert.deepStrictEqual(yield* on.claimIds(), ["second", "third", "low"])
      })

      test("as many priorities are told apart as the driver says", function* (on, context) {
        const { priorities } = on.driver.capabilities
        if (!on.ordered) return yield* Suite.skip(context, NO_ORDER)
        if (priorities < 256) return yield* Suite.skip(context, `there are ${priorities} priorities`)
        for (const priority of [1, 255, 0, 254, 128, 127]) {
          yield* on.publish(`${priority}`, { priority })
        }
        assert.deepStrictEqual(yield* on.claimIds(), ["255", "254", "128", "127", "1", "0"])
      })

      test("one id may be sent twice, and nothing of it is lost", function* (on) {
        yield* on.driver.publish([envelope("a", { body: "first" }), envelope("a", { body: "second" })])
        yield* on.publish("b")
        const claimed = yield* on.claim()
        assert.strictEqual(new Set(claimed.map(({ handle }) => handle)).size, claimed.length)
        const bodies = claimed.flatMap(({ body, id }) => (id === "a" ? [body] : []))
        assert.sameMembers(bodies, ["first", "second"])
      })

      test("an ack leaves a later message of the same id alone", function* (on) {
        yield* on.publish("a", { body: "first" })
        const first = yield* on.claimOne()
        yield* on.publish("a", { body: "second" })
        assert.isTrue(yield* on.ack(first))
        assert.strictEqual((yield* on.claimOne()).body, "second")
      })

      test("a large batch comes whole", function* (on) {
        const ids = Arr.map(Arr.range(1, 1000), (n) => `id-${n}`)
        yield* on.driver.publish(Arr.map(ids, (id) => envelope(id)))
        const claimed = yield* on.claimIds(2000)
        assert.deepStrictEqual(claimed.toSorted(), ids.toSorted())
      })

      test("of many that claim at once, each message goes to one", function* (on) {
        const ids = Arr.map(Arr.range(1, 400), (n) => `id-${n}`)
        yield* on.driver.publish(Arr.map(ids, (id) => envelope(id)))
        const claimer = Effect.gen(function* () {
          const mine: Array<string> = []
          for (;;) {
            const claimed = yield* on.claimIds(7)
            if (claimed.length === 0) return mine
            assert.isAtMost(claimed.length, 7)
            mine.push(...claimed)
          }
        })
        const claimed = yield* Effect.all(Arr.replicate(claimer, 20), { concurrency: "unbounded" })
        assert.deepStrictEqual(claimed.flat().toSorted(), ids.toSorted())
      })

      for (const [what, text] of Suite.texts) {
        test(`${what} in a body comes as it was sent`, function* (on) {
          yield* on.publish("a", { body: text })
          assert.isTrue((yield* on.claimOne()).body === text)
        })
      }
    })

    describe("delays", () => {
      test("a message is not claimed before it is due", function* (on) {
        yield* on.publish("a", { delayMillis: on.time.long })
        yield* on.time.pass(1)
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.deepStrictEqual(yield* on.counts, { ready: 0, delayed: 1, claimed: 0 })
      })

      test("a message is claimed once it is due", function* (on) {
        yield* on.publish("a", { delayMillis: on.time.units(1), body: "the body" })
        yield* on.time.pass(2)
        assert.strictEqual((yield* on.claimOne()).body, "the body")
      })

      test("messages come in the order in which they became due", function* (on, context) {
        if (!on.ordered) return yield* Suite.skip(context, NO_ORDER)
        yield* on.publish("last", { delayMillis: on.time.units(2) })
        yield* on.publish("second", { delayMillis: on.time.units(1) })
        yield* on.publish("first")
        yield* on.time.pass(3)
        assert.deepStrictEqual(yield* on.claimIds(), ["first", "second", "last"])
      })

      test("the age of a message is counted from when it became due", function* (on) {
        yield* on.publish("a", { delayMillis: on.time.units(10) })
        yield* on.publish("b")
        yield* on.time.pass(11)
        const ages = new Map((yield* on.claim()).map(({ ageMillis, id }) => [id, ageMillis]))
        assert.isAtLeast(ages.get("b") ?? -1, on.time.units(10))
        assert.isBelow(ages.get("a") ?? Infinity, on.time.units(9))
      })

      test("a message can be delayed as long as the driver says", function* (on) {
        yield* on.publish("a", { delayMillis: on.driver.capabilities.maxDelayMillis })
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.deepStrictEqual(yield* on.counts, { ready: 0, delayed: 1, claimed: 0 })
      })
    })

    describe("leases", () => {
      test("a claim whose lease ran out makes the message due again, under another handle", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a", { body: "the body" })
        const first = yield* on.lapse
        const second = yield* on.claimOne()
        assert.deepStrictEqual([second.id, second.task, second.body], ["a", "mail", "the body"])
        assert.notStrictEqual(second.handle, first.handle)
      })

      test("a renewal holds a claim", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        const claimed = yield* on.claimOne(on.time.units(5))
        assert.isTrue(yield* on.renew(claimed))
        yield* on.time.pass(6)
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.isTrue(yield* on.renew(claimed))
        assert.isTrue(yield* on.ack(claimed))
      })

      test("a renewed claim lapses too", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        const claimed = yield* on.claimOne()
        assert.isTrue(yield* on.renew(claimed, on.time.units(1)))
        yield* on.time.pass(2)
        assert.strictEqual((yield* on.claimOne()).id, "a")
      })

      test("a claim that was taken over can do nothing more", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        const stale = yield* on.lapse
        const current = yield* on.claimOne()
        assert.isFalse(yield* on.renew(stale))
        assert.isFalse(yield* on.ack(stale))
        yield* on.release(stale, { body: "stale" })
        yield* on.driver.reject([{ handle: stale.handle, reason: "stale" }])
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.isTrue(yield* on.renew(current))
        assert.isTrue(yield* on.ack(current))
      })

      test("in one batch, a claim that was taken over and the one that took it over are told apart", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        const staleA = yield* on.lapse
        const currentA = yield* on.claimOne()
        yield* on.publish("b")
        const staleB = yield* on.lapse
        const currentB = yield* on.claimOne()
        const handles = [staleA.handle, currentA.handle, currentB.handle, staleB.handle] as const
        assert.deepStrictEqual(yield* on.driver.renew(handles, on.time.long), [false, true, true, false])
        assert.deepStrictEqual(yield* on.driver.ack(handles), [false, true, true, false])
        assert.deepStrictEqual(yield* on.counts, { ready: 0, delayed: 0, claimed: 0 })
      })

      test("a claim that ran out holds until another one takes its message, whoever has looked", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        const lapsed = yield* on.lapse
        yield* on.publish("b", { priority: 255 })
        assert.strictEqual((yield* on.claimOne()).id, "b")
        assert.isTrue(yield* on.renew(lapsed))
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.isTrue(yield* on.ack(lapsed))
      })

      test("of many that claim a lapsed message at once, one has it", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        yield* on.lapse
        const claimed = yield* Effect.all(Arr.replicate(on.claimIds(), 20), { concurrency: "unbounded" })
        assert.deepStrictEqual(claimed.flat(), ["a"])
      })
    })

    describe("ack, release and reject", () => {
      test("an ack removes a message for good", function* (on) {
        yield* on.publish("a")
        const claimed = yield* on.claimOne(on.time.units(5))
        assert.isTrue(yield* on.ack(claimed))
        yield* on.time.pass(6)
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.deepStrictEqual(yield* on.counts, { ready: 0, delayed: 0, claimed: 0 })
      })

      test("a repeated ack finds nothing to remove", function* (on) {
        yield* on.publish("a")
        const claimed = yield* on.claimOne()
        assert.isTrue(yield* on.ack(claimed))
        assert.isFalse(yield* on.ack(claimed))
        assert.isFalse(yield* on.renew(claimed))
      })

      test("a released message is claimed again, under another handle", function* (on) {
        yield* on.publish("a", { body: "the body" })
        const first = yield* on.claimOne()
        yield* on.release(first)
        const second = yield* on.claimOne()
        assert.deepStrictEqual([second.id, second.task, second.body], ["a", "mail", "the body"])
        assert.notStrictEqual(second.handle, first.handle)
        assert.isFalse(yield* on.ack(first))
        assert.isTrue(yield* on.ack(second))
      })

      test("a released message is held no more", function* (on) {
        yield* on.publish("a")
        const claimed = yield* on.claimOne()
        yield* on.release(claimed)
        assert.isFalse(yield* on.renew(claimed))
        assert.isFalse(yield* on.ack(claimed))
        assert.deepStrictEqual(yield* on.claimIds(), ["a"])
      })

      test("a repeated release puts a message back once", function* (on) {
        yield* on.publish("a")
        const { handle } = yield* on.claimOne()
        const release = { handle, afterMillis: 0 }
        yield* on.driver.release([release, release])
        yield* on.driver.release([release])
        assert.deepStrictEqual(yield* on.claimIds(), ["a"])
        yield* on.driver.release([release])
        assert.deepStrictEqual(yield* on.claim(), [])
      })

      test("a message that is put back with a delay is not claimed before", function* (on) {
        yield* on.publish("a")
        yield* on.release(yield* on.claimOne(), { afterMillis: on.time.long })
        yield* on.time.pass(1)
        assert.deepStrictEqual(yield* on.claim(), [])
        assert.deepStrictEqual(yield* on.counts, { ready: 0, delayed: 1, claimed: 0 })
      })

      test("a message that is put back with a delay is claimed after", function* (on) {
        yield* on.publish("a")
        yield* on.release(yield* on.claimOne(), { afterMillis: on.time.units(1) })
        yield* on.time.pass(2)
        assert.strictEqual((yield* on.claimOne()).id, "a")
      })

      test("a message that is put back is due anew", function* (on) {
        yield* on.publish("a")
        yield* on.time.pass(10)
        yield* on.release(yield* on.claimOne())
        assert.isBelow((yield* on.claimOne()).ageMillis, on.time.units(9))
      })

      test("a message that keeps its due time keeps its age, and waits all the same", function* (on) {
        yield* on.publish("a")
        yield* on.time.pass(3)
        yield* on.release(yield* on.claimOne(), { afterMillis: on.time.units(5), preserveDueTime: true })
        assert.deepStrictEqual(yield* on.claim(), [])
        yield* on.time.pass(6)
        const again = yield* on.claimOne()
        assert.isAtLeast(again.ageMillis, on.time.units(8))
        yield* on.release(again, { preserveDueTime: true })
        assert.isAtLeast((yield* on.claimOne()).ageMillis, on.time.units(8))
      })

      test("a message that keeps its due time tells for how long it was put back", function* (on) {
        const claimed = Effect.map(on.claimOne(), (delivery) => ({
          delivery,
          waited: delivery.waitedMillis ?? delivery.ageMillis
        }))
        yield* on.publish("a")
        for (const times of [0, 1, 2]) {
          const { delivery, waited } = yield* claimed
          assert.isAtLeast(waited, times * on.time.units(2))
          yield* on.release(delivery, { afterMillis: on.time.units(2), preserveDueTime: true })
          yield* on.time.pass(3)
        }
      })

      test("a message can be put back with another body", function* (on) {
        yield* on.publish("a", { body: "first" })
        yield* on.release(yield* on.claimOne(), { body: "second" })
        const second = yield* on.claimOne()
        assert.deepStrictEqual([second.id, second.body], ["a", "second"])
        yield* on.release(second)
        assert.strictEqual((yield* on.claimOne()).body, "second")
      })

      test("a message that is put back keeps its priority", function* (on, context) {
        if (!on.ordered) return yield* Suite.skip(context, NO_ORDER)
        if (on.driver.capabilities.priorities < 2) return yield* Suite.skip(context, "there is one priority")
        yield* on.publish("high", { priority: 255 })
        yield* on.publish("low")
        yield* on.release(yield* on.claimOne())
        assert.deepStrictEqual(yield* on.claimIds(), ["high", "low"])
      })

      test("a rejected message is out of the way of every claim", function* (on) {
        yield* on.driver.publish([envelope("a"), envelope("b")])
        const claimed = yield* on.claim(100, on.time.units(5))
        const rejections = Arr.map(claimed, ({ handle, id }) => ({ handle, reason: `no ${id}` }))
        assert(Arr.isReadonlyArrayNonEmpty(rejections))
        yield* on.driver.reject(rejections)
        yield* on.driver.reject(rejections)
        yield* on.time.pass(6)
        assert.deepStrictEqual(yield* on.claim(), [])
      })

      test("a batch of handles is answered in order", function* (on) {
        yield* on.driver.publish([envelope("a"), envelope("b")])
        const [first, second] = yield* on.claim()
        assert(first !== undefined && second !== undefined)
        assert.isTrue(yield* on.ack(first))
        const handles = [first.handle, second.handle, second.handle] as const
        assert.deepStrictEqual(yield* on.driver.renew(handles, on.time.long), [false, true, true])
        assert.deepStrictEqual(yield* on.driver.ack(handles), [false, true, false])
      })

      test("a handle that somebody made up is refused", function* (on) {
        const madeUp: Delivery = {
          handle: "made up",
          id: "a",
          task: "mail",
          queue: "default",
          ageMillis: 0,
          body: ""
        }
        assert.isFalse(yield* on.ack(madeUp))
        assert.isFalse(yield* on.renew(madeUp))
        yield* on.release(madeUp)
        yield* on.driver.reject([{ handle: madeUp.handle, reason: "no" }])
        assert.deepStrictEqual(yield* on.claim(), [])
      })
    })

    describe("counts and purge", () => {
      test("messages are counted by what they wait for", function* (on) {
        yield* on.driver.publish(Arr.map(Arr.range(1, 6), (n) => envelope(`id-${n}`)))
        yield* on.publish("later", { delayMillis: on.time.long })
        const [first] = yield* on.claim(3)
        assert.deepStrictEqual(yield* on.counts, { ready: 3, delayed: 1, claimed: 3 })
        assert(first !== undefined)
        yield* on.release(first)
        assert.deepStrictEqual(yield* on.counts, { ready: 4, delayed: 1, claimed: 2 })
      })

      test("queues are counted in order", function* (on) {
        yield* on.publish("a", { queue: "x" })
        yield* on.publish("b", { queue: "y", delayMillis: on.time.long })
        const counts = yield* on.driver.counts(["nobody", "y", "x"])
        assert.deepStrictEqual(counts, [
          { ready: 0, delayed: 0, claimed: 0 },
          { ready: 0, delayed: 1, claimed: 0 },
          { ready: 1, delayed: 0, claimed: 0 }
        ])
      })

      test("what became due is counted as ready", function* (on) {
        yield* on.publish("a", { delayMillis: on.time.units(1) })
        yield* on.time.pass(2)
        assert.deepStrictEqual(yield* on.counts, { ready: 1, delayed: 0, claimed: 0 })
      })

      test("a claim whose lease ran out is counted as ready", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        yield* on.lapse
        assert.deepStrictEqual(yield* on.counts, { ready: 1, delayed: 0, claimed: 0 })
      })

      test("a purge removes what nobody has claimed, and answers the ids", function* (on) {
        yield* on.publish("claimed")
        const claimed = yield* on.claimOne()
        yield* on.publish("ready")
        yield* on.publish("delayed", { delayMillis: on.time.long })
        yield* on.publish("other", { queue: "other" })
        assert.deepStrictEqual((yield* on.driver.purge("default", 100)).toSorted(), ["delayed", "ready"])
        assert.deepStrictEqual(yield* on.counts, { ready: 0, delayed: 0, claimed: 1 })
        assert.deepStrictEqual(yield* on.driver.purge("default", 100), [])
        assert.deepStrictEqual(yield* on.driver.purge("nobody", 100), [])
        assert.deepStrictEqual(idsOf(yield* on.claim(1, on.time.long, ["other"])), ["other"])
        assert.isTrue(yield* on.ack(claimed))
      })

      test("a purge removes what waits with a task's default priority too", function* (on) {
        for (const id of ["a", "b", "c"]) yield* on.publish(id, { priority: defaults.priority })
        const [first, second] = [yield* on.driver.purge("default", 2), yield* on.driver.purge("default", 2)]
        assert.deepStrictEqual([first.length, second.length], [2, 1])
        assert.sameMembers([...first, ...second], ["a", "b", "c"])
        assert.deepStrictEqual(yield* on.claim(), [])
      })

      test("a purge keeps to its limit", function* (on) {
        yield* on.driver.publish([
          ...Arr.map(Arr.range(1, 3), (n) => envelope(`id-${n}`)),
          ...Arr.map(Arr.range(4, 5), (n) => envelope(`id-${n}`, { delayMillis: on.time.long }))
        ])
        const purged = yield* Effect.replicateEffect(on.driver.purge("default", 2), 4)
        assert.deepStrictEqual(
          purged.map((ids) => ids.length),
          [2, 2, 1, 0]
        )
        assert.strictEqual(new Set(purged.flat()).size, 5)
      })
    })

    describe("ready", () => {
      /** Claims whenever there is a reason to, and keeps what it got. */
      const consume = Effect.fnUntraced(function* (on: Subject, queues: Batch<string> = ["default"]) {
        const got: Array<Delivery> = []
        yield* Stream.runForEach(on.driver.ready(queues, 100), () =>
          Effect.map(on.claim(100, on.time.long, queues), (claimed) => void got.push(...claimed))
        ).pipe(Effect.forkScoped)
        const expectMessage = (id: string) =>
          on.time.eventually(
            `${id} is claimed`,
            Effect.sync(() => got.some((delivery) => delivery.id === id))
          )
        return { got, expectMessage }
      })

      /** As `consume`, with reasons known to flow. */
      const consumeActively = Effect.fnUntraced(function* (on: Subject, queues: Batch<string> = ["default"]) {
        const consumer = yield* consume(on, queues)
        yield* on.time.eventually(
          "a message wakes a consumer",
          Effect.suspend(() => Effect.as(on.publish("probe", { queue: queues[0] }), consumer.got.length > 0))
        )
        return consumer
      })

      test("wakes a consumer for what is published", function* (on) {
        const { expectMessage } = yield* consumeActively(on)
        yield* on.time.pass(2)
        yield* on.publish("a")
        yield* expectMessage("a")
      })

      test("wakes a consumer for any of its queues", function* (on) {
        const { expectMessage } = yield* consumeActively(on, ["x", "y"])
        yield* on.publish("a", { queue: "y" })
        yield* expectMessage("a")
        yield* on.publish("b", { queue: "x" })
        yield* expectMessage("b")
      })

      test("wakes a consumer for what is there already", function* (on) {
        yield* on.publish("a")
        const { expectMessage } = yield* consume(on)
        yield* expectMessage("a")
      })

      test("wakes a consumer when a delay is over", function* (on) {
        yield* on.publish("a", { delayMillis: on.time.units(4) })
        const { expectMessage } = yield* consumeActively(on)
        yield* on.publish("b", { delayMillis: on.time.units(2) })
        yield* expectMessage("b")
        yield* expectMessage("a")
      })

      test("wakes a consumer for every delay, also for one soon after another", function* (on) {
        const { expectMessage, got } = yield* consumeActively(on)
        const delays = [2, 2.25, 2.5, 2.75]
        yield* Effect.forEach(delays, (delay) =>
          on.publish(`${delay}`, { delayMillis: on.time.units(delay) })
        )
        yield* Effect.forEach(delays, (delay) => expectMessage(`${delay}`))
        for (const { ageMillis, id } of got) assert.isBelow(ageMillis, on.time.units(2), `${id} came late`)
      })

      test("wakes a consumer when a message is put back", function* (on) {
        const { expectMessage, got } = yield* consumeActively(on)
        yield* on.publish("a")
        yield* expectMessage("a")
        const claimed = got.find(({ id }) => id === "a")
        assert(claimed !== undefined)
        got.length = 0
        yield* on.release(claimed, { afterMillis: on.time.units(1) })
        yield* expectMessage("a")
      })

      test("wakes a consumer when a lease ran out", function* (on, context) {
        if (!on.leases) return yield* Suite.skip(context, NO_LEASE)
        yield* on.publish("a")
        yield* on.claimOne(on.time.units(4))
        const { expectMessage } = yield* consumeActively(on)
        yield* expectMessage("a")
      })

      test("wakes each of several consumers, and each message goes to one", function* (on) {
        const consumers = [yield* consumeActively(on), yield* consume(on)]
        const ids = Arr.map(Arr.range(1, 50), (n) => `id-${n}`)
        yield* Effect.forEach(ids, (id) => on.publish(id), { concurrency: 5, discard: true })
        const got = () => consumers.flatMap((consumer) => idsOf(consumer.got)).filter((id) => id !== "probe")
        yield* on.time.eventually(
          "all messages are claimed",
          Effect.sync(() => got().length >= ids.length)
        )
        assert.deepStrictEqual(got().toSorted(), ids.toSorted())
      })
    })
  })
}
