/** The messages of tasks that end before they are due: none of them is left behind. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, Scope } from "effect"
import { Redis } from "effect/persistence/Redis"
import type { NewRecord, Outcome } from "../../src/BackendDriver.ts"
import type { Envelope } from "../../src/BrokerDriver.ts"
import * as RecordText from "../../src/redis/RecordText.ts"
import * as RedisCluster from "../../src/redis/RedisCluster.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { eventually } from "../support/storeFixture.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { type Cluster, describeWithRedis, describeWithServers, startCluster } from "./server.ts"
import { keysOf, makePrefix, temporary } from "./temporary.ts"

const HOUR = 3_600_000
/** A name that has to be escaped in a record. */
const QUEUE = "a queue/50%25"

interface Fixture extends RedisStore.Drivers {
  readonly prefix: string
  readonly redis: Redis["Service"]
  readonly keys: Effect.Effect<ReadonlyArray<string>, unknown>
}

const recordOf = (id: string, more: Partial<NewRecord> = {}): NewRecord => ({
  id,
  task: "mail",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: HOUR,
  reservedMillis: undefined,
  ...more
})

const messageOf = (id: string, delayMillis: number): Envelope => ({
  id,
  task: "mail",
  queue: QUEUE,
  priority: 100,
  delayMillis,
  body: "{}"
})

/** Enqueues a task in one step. */
const enqueue = (
  { backend }: Fixture,
  id: string,
  delayMillis: number,
  { incarnation = "", ...more }: Partial<NewRecord> = {}
) =>
  backend.fusion!.enqueue([
    {
      record: recordOf(id, { incarnation, ...more }),
      message: { ...messageOf(id, delayMillis), incarnation }
    }
  ])

/** Claims the messages that are due, and starts their runs. */
const claim = ({ backend }: Fixture) =>
  backend.fusion!.claim!({
    queues: [QUEUE],
    max: 10,
    leaseMillis: HOUR,
    worker: "w",
    startDefaults: [
      {
        task: "mail",
        leaseMillis: HOUR,
        maxCrashes: 3,
        retentionMillis: HOUR,
        deadLetterRetentionMillis: HOUR
      }
    ]
  })

const counts = ({ broker }: Fixture) => Effect.map(broker.counts([QUEUE]), (found) => withoutAges(found)[0]!)

/** Claims one message as soon as it is due. */
const claimWhenDue = (store: Fixture) =>
  Effect.andThen(
    eventually(Effect.map(counts(store), ({ ready }) => ready === 1)),
    Effect.map(claim(store), ([claimed]) => claimed!)
  )

/** The fields of a record. */
const fieldsOf = ({ keys, redis }: Fixture, id: string) =>
  Effect.gen(function* () {
    const key = (yield* keys).find((name) => name.endsWith(`:task:${id}`))!
    const [line] = (yield* redis.send<string>("GET", key)).split("\n")
    return Object.fromEntries(line!.split(" ").map((field, at) => [RecordText.FIELDS[at]!, field]))
  })

/** The keys without the shard, and without those that belong to no task. */
const namesLeft = ({ keys }: Fixture) =>
  Effect.map(keys, (all) =>
    all
      .map((key) => key.slice(key.indexOf("}:") + 2))
      .filter(
        (name) => !/^(messages-order$|tags-order$|task-tags$|tagged-tasks$|last-claim:|sweeper$)/.test(name)
      )
  )

const suite = (make: Effect.Effect<Fixture, unknown, Scope.Scope>, shards: number) => {
  const test = (name: string, body: (store: Fixture) => Effect.Effect<void, unknown>) =>
    it.live(name, () => Effect.scoped(Effect.flatMap(make, body)))

  test("a task that is cancelled leaves its record alone", (store) =>
    Effect.gen(function* () {
      for (const id of ["a", "b", "c"]) yield* enqueue(store, id, HOUR)
      assert.deepStrictEqual(yield* counts(store), { ready: 0, delayed: 3, claimed: 0 })
      assert.deepStrictEqual(yield* store.backend.cancel(["a", "b", "c"]), [
        "Cancelled",
        "Cancelled",
        "Cancelled"
      ])
      assert.sameMembers(yield* namesLeft(store), ["task:a", "task:b", "task:c"])
    }))

  test("tasks of one batch and one payload are told apart", (store) =>
    Effect.gen(function* () {
      yield* store.backend.fusion!.enqueue([
        { record: recordOf("a"), message: messageOf("a", 10) },
        { record: recordOf("b"), message: messageOf("b", 10) },
        { record: recordOf("c", { incarnation: "7c" }), message: messageOf("c", 10) }
      ])
      // the second is not published, as its task exists
      yield* store.backend.fusion!.enqueue([
        { record: recordOf("d"), message: messageOf("d", HOUR) },
        { record: recordOf("a"), message: messageOf("a", HOUR) },
        { record: recordOf("e"), message: messageOf("e", HOUR) }
      ])
      yield* store.backend.cancel(["a", "c", "d", "e"])
      const { delivery, run } = yield* claimWhenDue(store)
      assert.strictEqual(delivery.id, "b")
      assert.strictEqual(run?.started._tag, "Run")
      assert.deepStrictEqual(yield* counts(store), { ready: 0, delayed: 0, claimed: 1 })
    }))

  test("a task that a sweep ends as expired leaves its record alone", (store) =>
    Effect.gen(function* () {
      yield* enqueue(store, "a", HOUR, { expiresMillis: 1 })
      yield* eventually(Effect.map(store.backend.sweep(10), ({ handled }) => handled === 1))
      assert.deepStrictEqual(yield* namesLeft(store), ["task:a"])
    }))

  test("a task that a read ends as expired leaves its record alone", (store) =>
    Effect.gen(function* () {
      yield* enqueue(store, "a", HOUR, { expiresMillis: 1 })
      yield* eventually(Effect.map(store.backend.read(["a"]), ([record]) => record?.ended === "Expired"))
      assert.deepStrictEqual(yield* namesLeft(store), ["task:a"])
    }))

  test("a task that is forgotten and cancelled leaves nothing", (store) =>
    Effect.gen(function* () {
      yield* enqueue(store, "a", HOUR)
      yield* store.backend.forget(["a"])
      yield* store.backend.cancel(["a"])
      assert.deepStrictEqual(yield* namesLeft(store), [])
    }))

  test("a task with a key leaves its record and its key", (store) =>
    Effect.gen(function* () {
      for (const id of ["a", "b", "c"]) yield* enqueue(store, id, HOUR, { key: id, payloadHash: "h" })
      assert.deepStrictEqual(yield* counts(store), { ready: 0, delayed: 3, claimed: 0 })
      yield* store.backend.cancel(["a", "b", "c"])
      const names = (yield* namesLeft(store)).filter((name) => name !== "foreign")
      assert.sameMembers(
        names,
        ["a", "b", "c"].flatMap((id) => [`task:${id}`, `key:4:mail${id}`])
      )
    }))

  test("a task that waits for a retry leaves its record alone", (store) =>
    Effect.gen(function* () {
      yield* enqueue(store, "a", 0)
      const { delivery, run } = yield* claimWhenDue(store)
      const outcome: Outcome = { _tag: "Retry", afterMillis: HOUR }
      yield* store.backend.fusion!.settle([
        { handle: delivery.handle, settlement: { id: "a", token: run!.token, outcome } }
      ])
      assert.deepStrictEqual(yield* counts(store), { ready: 0, delayed: 1, claimed: 0 })
      assert.deepStrictEqual(yield* store.backend.cancel(["a"]), ["Cancelled"])
      assert.deepStrictEqual(yield* namesLeft(store), ["task:a"])
    }))

  for (const [what, more, plain] of [
    ["a task", {}, "-"],
    ["a task with a given id", { payloadHash: "h", incarnation: "7c" }, "-"],
    ["a task that expires", { expiresMillis: HOUR }, "+"]
  ] as const) {
    test(`the record of ${what} that started says nothing of its message`, (store) =>
      Effect.gen(function* () {
        yield* enqueue(store, "a", 10, more)
        const before = yield* fieldsOf(store, "a")
        assert.match(before["delayedMessage"]!, /^\d+:\d+:100:1\/a%20queue\/50%2525$/)
        const { delivery, run } = yield* claimWhenDue(store)
        assert.deepInclude(yield* fieldsOf(store, "a"), {
          state: "STARTED",
          plain,
          delayedMessage: "-",
          enqueuedAt: before["enqueuedAt"],
          payloadHash: before["payloadHash"]
        })
        const outcome: Outcome = { _tag: "Success", exit: "{}", retentionMillis: HOUR }
        yield* store.backend.fusion!.settle([
          { handle: delivery.handle, settlement: { id: "a", token: run!.token, outcome } }
        ])
        const names = (yield* namesLeft(store)).filter((name) => !name.startsWith("task:"))
        assert.deepStrictEqual(names, [])
      }))
  }

  if (shards === 1) return
  test("a task whose record is lost between its two steps is enqueued again", (store) =>
    Effect.gen(function* () {
      // the first call that has the message in it finds no record
      let lost = 0
      const send: Redis["Service"]["send"] = (command, ...args) =>
        Effect.andThen(
          args.at(-1)?.endsWith("\n{}") && lost++ === 0
            ? Effect.andThen(store.backend.cancel(["a"]), store.backend.forget(["a"]))
            : Effect.void,
          store.redis.send(command, ...args)
        ) as never
      const { backend } = yield* RedisStore.makeDrivers({ prefix: store.prefix, shards }).pipe(
        Effect.provideService(Redis, { ...store.redis, send })
      )
      const task = {
        record: recordOf("a", { queue: "default", key: "k", payloadHash: "h" }),
        delayMillis: 0,
        message: messageOf("a", HOUR)
      }
      assert.deepStrictEqual(yield* backend.fusion!.enqueue([task]), [{ _tag: "Created" }])
      assert.isAbove(lost, 1)
      assert.deepStrictEqual(yield* counts(store), { ready: 0, delayed: 1, claimed: 0 })
      assert.strictEqual((yield* fieldsOf(store, "a"))["reservedUntil"], "-")
    }).pipe(Effect.scoped))
}

await describeWithRedis("messages of tasks that end early", () => {
  for (const shards of [1, 3]) {
    describe(shards === 1 ? "with one shard" : "with three shards", () => {
      const make = Effect.gen(function* () {
        const { prefix, redis } = yield* temporary
        const drivers = yield* Effect.provideContext(RedisStore.makeDrivers({ prefix, shards }), redis)
        const keys = Effect.provideContext(keysOf(prefix), redis)
        return { ...drivers, prefix, redis: Context.get(redis, Redis), keys }
      })
      suite(make, shards)
    })
  }
})

describeWithServers("messages of tasks that end early, on a cluster of three nodes", () => {
  const scope = Scope.makeUnsafe()
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await Effect.runPromise(Scope.provide(startCluster(), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  const make = Effect.gen(function* () {
    const prefix = makePrefix()
    const client = RedisCluster.layer({ rootNodes: cluster.rootNodes })
    const redis = yield* Layer.build(Layer.provideMerge(client, Logger.layer([])))
    const drivers = yield* Effect.provideContext(RedisStore.makeDrivers({ prefix, shards: 3 }), redis)
    const keysOfNodes = Effect.forEach(cluster.nodes, ({ command }) => command("KEYS", `{${prefix}:*`))
    const keys = Effect.map(keysOfNodes, (all) => all.flat().map(String))
    return { ...drivers, prefix, redis: Context.get(redis, Redis), keys }
  })
  suite(make, 3)
})
