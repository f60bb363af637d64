/** Tags of members: numbers that stand for the names of tasks, by which messages are set aside. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, type Scope } from "effect"
import { Redis } from "effect/persistence/Redis"
import type { NewRecord } from "../../src/BackendDriver.ts"
import type { Batch, Delivery, Envelope, Release } from "../../src/BrokerDriver.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { eventually } from "../support/storeFixture.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { describeWithRedis } from "./server.ts"
import { temporary } from "./temporary.ts"

const HOUR = 3_600_000

const idsOf = (claimed: ReadonlyArray<Delivery>) => claimed.map(({ id }) => id)

/** The tag of a member, or of that in a handle. */
const tagOf = (member: string) => member.split(":")[3]

/** A message of the task with which its id begins: `mail 1` is of `mail`. */
const message = (id: string, more: Partial<Envelope> = {}): Envelope => ({
  id,
  task: id.split(" ")[0]!,
  queue: "q",
  priority: 100,
  delayMillis: 0,
  body: "{}",
  ...more
})

const recordOf = ({ id, task }: Envelope): NewRecord => ({
  id,
  task,
  incarnation: "",
  queue: "q",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: HOUR,
  reservedMillis: undefined
})

const makeFixture = Effect.gen(function* () {
  const { prefix, redis } = yield* temporary
  const { backend, broker } = yield* Effect.provideContext(RedisStore.makeDrivers({ prefix }), redis)
  const { send } = Context.get(redis, Redis)
  const base = `{${prefix}:0}`
  const queue = `${base}:queue:q`
  let claims = 0
  let posted = 900_000
  const publish = (...ids: ReadonlyArray<string>) =>
    Effect.forEach(ids, (id) => broker.publish([message(id)]), { discard: true })
  return {
    backend,
    broker,
    base,
    queue,
    send,
    publish,
    /** A worker that knows some tasks. */
    worker: (...tasks: ReadonlyArray<string>) => ({
      claim: (max = 100, leaseMillis = HOUR) =>
        broker.claim({ queues: ["q"], max, leaseMillis, worker: "w", claimId: `c.${++claims}`, tasks })
    }),
    claimSetAside: (task: string, minWaitedMillis = 0, max = 100) =>
      broker.setAside!.claim({ queue: "q", task, minWaitedMillis, max, leaseMillis: HOUR, worker: "ender" }),
    counts: Effect.map(broker.counts(["q"]), (found) => withoutAges(found)[0]!),
    /** The members of a place. */
    members: (place: "fresh" | "ready" | "delayed") =>
      place === "fresh"
        ? send<Array<string>>("LRANGE", `${queue}:fresh`, "0", "-1")
        : send<Array<string>>("ZRANGE", `${queue}:${place}`, "0", "-1"),
    /** Adds a message to a place, with a member that has no tag. */
    post: Effect.fnUntraced(function* (place: "fresh" | "ready", id: string, due = Date.now()) {
      const number = `${++posted}`.padStart(15, "0")
      const member = `${number}:${due}:100`
      yield* send("HSET", `${queue}:texts`, number, `${encodeURIComponent(id)} ${message(id).task} 0 -\n{}`)
      if (place === "fresh") yield* send("RPUSH", `${queue}:fresh`, member)
      else yield* send("ZADD", `${queue}:ready`, "0", member)
    }),
    /** Replaces the text of every message. */
    edit: Effect.fnUntraced(function* (text: string) {
      for (const number of yield* send<Array<string>>("HKEYS", `${queue}:texts`)) {
        yield* send("HSET", `${queue}:texts`, number, text)
      }
    })
  }
})

type Fixture = Effect.Success<typeof makeFixture>

const test = (title: string, body: (t: Fixture) => Effect.fn.Return<void, unknown, Scope.Scope>) =>
  it.live(title, () =>
    Effect.gen(function* () {
      return yield* body(yield* makeFixture)
    })
  )

await describeWithRedis("tags of messages in Redis", () => {
  describe.concurrent("a message without a tag", () => {
    for (const place of ["fresh", "ready"] as const) {
      test(`is claimed from the ${place} ones by a worker that knows its task`, function* (t) {
        yield* t.post(place, "mail 1")
        const [claimed] = yield* t.worker("mail").claim()
        assert.strictEqual(claimed?.id, "mail 1")
        assert.strictEqual(tagOf(claimed!.handle), "0")
        assert.deepStrictEqual(yield* t.broker.ack([claimed!.handle]), [true])
      })

      test(`is set aside from the ${place} ones by its text, and claimed`, function* (t) {
        yield* t.publish("other 1")
        yield* t.post(place, "other 2")
        yield* t.post(place, "another 1")
        yield* t.post(place, "mail 1")
        const mailer = t.worker("mail")
        assert.deepStrictEqual(yield* mailer.claim(1), [])
        assert.deepStrictEqual(idsOf(yield* mailer.claim(1)), ["mail 1"])
        assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 1, setAside: 3 })
        const claimed = yield* t.worker("other").claim()
        assert.sameMembers(idsOf(claimed), ["other 1", "other 2"])
        assert.deepStrictEqual(idsOf(yield* t.worker("another").claim()), ["another 1"])
        const [first, second] = claimed
        assert.deepStrictEqual(yield* t.broker.ack([first!.handle, second!.handle]), [true, true])
      })
    }

    test("is set aside behind thousands of others", function* (t) {
      const numbers = Array.from({ length: 1200 }, (_, n) => `${n + 1}`.padStart(15, "0"))
      const texts = numbers.flatMap((number, n) => [number, `id${n} other 0 -\n{}`])
      yield* t.send("HSET", `${t.queue}:texts`, ...texts)
      yield* t.send("RPUSH", `${t.queue}:fresh`, ...numbers.map((number) => `${number}:${Date.now()}:100`))
      yield* t.post("fresh", "mail 1")
      const mailer = t.worker("mail")
      const found: Array<Delivery> = []
      yield* eventually(Effect.map(mailer.claim(10), (claimed) => found.push(...claimed) === 1))
      assert.deepStrictEqual(idsOf(found), ["mail 1"])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 1, setAside: 1200 })
    })
  })

  describe.concurrent("a tag", () => {
    test("is the same for every message of a task, and another one for each task", function* (t) {
      yield* t.publish("mail 1", "other 1", "mail 2", "- 1", "other 2")
      assert.deepStrictEqual((yield* t.members("fresh")).map(tagOf), ["1", "2", "1", "3", "2"])
    })

    test("is kept by a release", function* (t) {
      yield* t.publish("mail 1", "other 1", "other 2", "other 3")
      const [, ...claimed] = yield* t.worker("mail", "other").claim()
      yield* t.broker.release(
        claimed.map(({ handle }, n) => ({
          handle,
          afterMillis: n === 0 ? HOUR : 0,
          preserveDueTime: n === 1
        })) as unknown as Batch<Release>
      )
      assert.deepStrictEqual((yield* t.members("delayed")).map(tagOf), ["2"])
      assert.deepStrictEqual((yield* t.members("ready")).map(tagOf), ["2", "2"])
      assert.deepStrictEqual(yield* t.worker("mail").claim(), [])
      assert.deepStrictEqual((yield* t.counts).setAside, 2)
    })

    test("is kept by a retry, and the record names the message", function* (t) {
      yield* t.publish("mail 1")
      const envelope = message("a", { task: "other" })
      yield* t.backend.fusion!.enqueue([{ record: recordOf(envelope), message: envelope }])
      const claimed = yield* t.backend.fusion!.claim!({
        queues: ["q"],
        max: 10,
        leaseMillis: HOUR,
        worker: "w",
        startDefaults: [
          {
            task: "other",
            leaseMillis: HOUR,
            maxCrashes: 3,
            retentionMillis: HOUR,
            deadLetterRetentionMillis: HOUR
          }
        ]
      })
      const { delivery, run } = claimed.find(({ delivery }) => delivery.id === "a")!
      assert.deepStrictEqual(
        yield* t.backend.fusion!.settle([
          {
            handle: delivery.handle,
            settlement: { id: "a", token: run!.token, outcome: { _tag: "Retry", afterMillis: HOUR } }
          }
        ]),
        ["Stored"]
      )
      const [member] = yield* t.members("delayed")
      assert.strictEqual(tagOf(member!), "2")
      assert.include(yield* t.send<string>("GET", `${t.base}:task:a`), ` ${member}/q\n`)
      assert.deepStrictEqual(yield* t.backend.cancel(["a"]), ["Cancelled"])
      assert.deepStrictEqual(yield* t.members("delayed"), [])
    })

    test("is kept by a claim that lapses, and by one of a message that was set aside", function* (t) {
      yield* t.publish("mail 1", "other 1")
      const worker = t.worker("mail", "other")
      yield* worker.claim(2, 1)
      yield* eventually(Effect.map(t.counts, ({ ready }) => ready === 2))
      assert.deepStrictEqual(idsOf(yield* t.worker("mail").claim()), ["mail 1"])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 1, setAside: 1 })
      const [claimed] = yield* t.worker("other").claim(1, 1)
      assert.strictEqual(tagOf(claimed!.handle), "2")
      yield* eventually(Effect.map(t.counts, ({ ready }) => ready === 1))
      const [again] = yield* t.worker("other").claim()
      assert.strictEqual(tagOf(again!.handle), "2")
    })

    test("that is lost is replaced by the text", function* (t) {
      yield* t.publish("other 1", "other 2", "mail 1")
      yield* t.send("DEL", `${t.base}:task-tags`, `${t.base}:tagged-tasks`, `${t.base}:tags-order`)
      // it has the tag that the others had
      yield* t.publish("another 1")
      const mailer = t.worker("mail")
      assert.deepStrictEqual(yield* mailer.claim(1), [])
      assert.deepStrictEqual(idsOf(yield* mailer.claim(1)), ["mail 1"])
      assert.deepStrictEqual(idsOf(yield* t.worker("another").claim()), ["another 1"])
      assert.sameMembers(idsOf(yield* t.worker("other").claim()), ["other 1", "other 2"])
    })
  })

  describe.concurrent("a message that was set aside", () => {
    test("leaves those that stay in their place and order", function* (t) {
      yield* t.publish("mail 1", "other 1", "mail 2", "other 2", "mail 3", "mail 4")
      const mailer = t.worker("mail")
      assert.deepStrictEqual(idsOf(yield* mailer.claim(2)), ["mail 1"])
      assert.deepStrictEqual((yield* t.members("fresh")).map(tagOf), ["1", "1", "1"])
      assert.deepStrictEqual(yield* t.members("ready"), [])
      assert.deepStrictEqual(idsOf(yield* mailer.claim()), ["mail 2", "mail 3", "mail 4"])
    })

    test("and whose text is edited is no longer of its task", function* (t) {
      yield* t.publish("other 1")
      const mailer = t.worker("mail")
      yield* mailer.claim()
      yield* t.edit("edited mail 0 -\n{}")
      assert.deepStrictEqual(yield* t.claimSetAside("other"), [])
      assert.deepStrictEqual(yield* t.counts, { ready: 1, delayed: 0, claimed: 0 })
      assert.deepStrictEqual(idsOf(yield* mailer.claim()), ["edited"])
    })

    test("and whose text is no message any more comes to a worker, byte for byte", function* (t) {
      yield* t.publish("other 1")
      const mailer = t.worker("mail")
      yield* mailer.claim()
      yield* t.edit("nothing")
      assert.deepStrictEqual(yield* t.claimSetAside("other"), [])
      assert.deepStrictEqual(
        (yield* mailer.claim()).map(({ body, id }) => [id, body]),
        [[undefined, "nothing"]]
      )
    })

    test("is claimed once, also if the clock of the server was set back", function* (t) {
      const later = Date.now() + HOUR
      yield* t.post("fresh", "other 1", later)
      yield* t.post("fresh", "other 2", later)
      yield* t.post("fresh", "other 3", later - 2 * HOUR)
      yield* t.post("fresh", "other 4", later)
      // the first is claimed and set aside, the others are at the head of the queue then
      assert.deepStrictEqual(yield* t.worker("mail").claim(1), [])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 0, setAside: 4 })
      assert.deepStrictEqual(yield* t.claimSetAside("other", 1000), [])
      const claimed = [...(yield* t.claimSetAside("other", 0, 2)), ...(yield* t.claimSetAside("other"))]
      assert.deepStrictEqual(idsOf(claimed), ["other 1", "other 2", "other 3", "other 4"])
      assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 4 })
    })
  })
})
