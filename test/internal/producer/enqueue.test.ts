import { assert, describe, it } from "@effect/vitest"
import { Backend } from "chicory"
import type { Envelope, NewRecord } from "chicory/driver"
import { Array as Arr, Effect, Exit, Fiber, Latch } from "effect"
import { TestClock } from "effect/testing"
import {
  enqueue as enqueueIn,
  enqueueAll,
  type PreparedTask
} from "../../../src/internal/producer/enqueue.ts"
import * as TaskMessage from "../../../src/TaskMessage.ts"
import * as MemoryFixture from "../../support/memoryFixture.ts"

const prepared = (id: string, more: Partial<PreparedTask> = {}): PreparedTask => ({
  head: {
    v: TaskMessage.version,
    id,
    generation: 0,
    task: "sum",
    queue: "default",
    retries: 0,
    priority: 100
  },
  payload: "7",
  delayMillis: 0,
  retentionMillis: undefined,
  reservation: undefined,
  ...more
})
const keyed = (id: string, payloadHash = "h1") => prepared(id, { reservation: { key: "k1", payloadHash } })

const make = Effect.fnUntraced(function* (options: MemoryFixture.Options = {}) {
  const fixture = yield* MemoryFixture.make({ hints: false, ...options })
  const { backend, broker } = fixture
  const operations = ["enqueue", "create", "publish", "markPublished"]
  return {
    fixture,
    enqueue: (item: PreparedTask) => Effect.withFiber((fiber) => enqueueIn(fiber, { backend, broker }, item)),
    enqueueAll: (items: ReadonlyArray<PreparedTask>) => enqueueAll({ backend, broker }, items),
    /** The operations since the last `clearCalls`, in order. */
    called: () => fixture.sequence(...operations),
    published: () => fixture.items("publish") as ReadonlyArray<Envelope>,
    created: () => fixture.items("create") as ReadonlyArray<NewRecord>
  }
})

describe("a task without a key", () => {
  it.effect("is reserved for an hour, published, then marked", () =>
    Effect.gen(function* () {
      const { called, created, enqueue } = yield* make()
      assert.strictEqual(yield* enqueue(prepared("a")), "a")
      assert.deepStrictEqual(called(), ["create", "publish", "markPublished"])
      assert.deepInclude(created()[0], {
        id: "a",
        key: undefined,
        payloadHash: "",
        reservedMillis: 3_600_000
      })
    })
  )

  it.effect("is not marked when its message is not published", () =>
    Effect.gen(function* () {
      const { called, enqueue } = yield* make({ broker: () => ({ publish: () => Effect.fail("down") }) })
      assert.strictEqual((yield* Effect.flip(enqueue(prepared("a"))))._tag, "BrokerError")
      assert.deepStrictEqual(called(), ["create", "publish"])
    })
  )

  it.effect("is finished when its producer is interrupted after the reservation", () =>
    Effect.gen(function* () {
      const [entered, gate] = [yield* Latch.make(), yield* Latch.make()]
      const { called, enqueue } = yield* make({
        broker: (driver) => ({
          publish: (messages) =>
            Effect.andThen(Effect.andThen(entered.open, gate.await), driver.publish(messages))
        })
      })
      const fiber = yield* Effect.forkChild(enqueue(prepared("a")))
      yield* entered.await
      assert.deepStrictEqual(called(), ["create", "publish"])
      fiber.interruptUnsafe()
      yield* gate.open
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(called(), ["create", "publish", "markPublished"])
    })
  )

  it.effect("is enqueued again when its reservation was removed before its message was published", () =>
    Effect.gen(function* () {
      let standStill: Effect.Effect<unknown> = Effect.void
      const { called, enqueue, fixture, published } = yield* make({
        backend: (driver) => {
          standStill = Effect.andThen(TestClock.adjust("61 minutes"), driver.sweep(10))
          return {}
        },
        broker: (driver) => ({
          publish: (messages) =>
            Effect.suspend(() => {
              const pause = standStill
              standStill = Effect.void
              return Effect.andThen(pause, driver.publish(messages))
            })
        })
      })
      assert.strictEqual(yield* enqueue(prepared("a")), "a")
      assert.deepStrictEqual(called(), [
        "create",
        "publish",
        "markPublished",
        "create",
        "publish",
        "markPublished"
      ])
      assert.lengthOf(published(), 2)
      assert.strictEqual((yield* fixture.driver.read(["a"]))[0]?.state, "PENDING")
    })
  )

  it.effect("is not enqueued again when it ran and was removed before it was marked", () =>
    Effect.gen(function* () {
      const { called, enqueue } = yield* make({
        backend: (driver) => ({
          markPublished: (records) =>
            Effect.andThen(
              driver.forget(Arr.map(records, ({ id }) => id)),
              Effect.succeed(records.map(() => false))
            )
        })
      })
      assert.strictEqual(yield* enqueue(prepared("a")), "a")
      assert.deepStrictEqual(called(), ["create", "publish", "markPublished"])
    })
  )

  it.effect("is published alone without a backend", () =>
    Effect.gen(function* () {
      const { called, fixture } = yield* make()
      const backend = yield* Effect.provide(Backend.Backend, Backend.layerNotConfigured)
      const stores = { backend, broker: fixture.broker }
      const id = yield* Effect.withFiber((fiber) => enqueueIn(fiber, stores, prepared("a")))
      assert.strictEqual(id, "a")
      assert.deepStrictEqual(called(), ["publish"])
    })
  )

  it.effect("tells the worker without a backend that it has no record", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, published } = yield* make()
      const backend = yield* Effect.provide(Backend.Backend, Backend.layerNotConfigured)
      yield* Effect.withFiber((fiber) => enqueueIn(fiber, { backend, broker: fixture.broker }, prepared("a")))
      yield* enqueue(prepared("b"))
      const messages = yield* Effect.forEach(published(), ({ body }) => TaskMessage.decode(body))
      assert.deepStrictEqual(
        messages.map(({ unrecorded }) => unrecorded),
        [true, undefined]
      )
    })
  )
})

describe("a task with a key", () => {
  it.effect("is reserved, published, then marked", () =>
    Effect.gen(function* () {
      const { called, created, enqueue } = yield* make()
      assert.strictEqual(yield* enqueue(keyed("a")), "a")
      assert.deepStrictEqual(called(), ["create", "publish", "markPublished"])
      assert.deepInclude(created()[0], { id: "a", key: "k1", payloadHash: "h1", reservedMillis: 3_600_000 })
    })
  )

  it.effect("is not published again when its key is taken", () =>
    Effect.gen(function* () {
      const { called, enqueue, fixture } = yield* make()
      yield* enqueue(keyed("a"))
      yield* fixture.clearCalls
      assert.strictEqual(yield* enqueue(keyed("b")), "a")
      assert.deepStrictEqual(called(), ["create"])
    })
  )

  it.effect("publishes an unpublished reservation under the reserved id", () =>
    Effect.gen(function* () {
      let down = true
      const { called, enqueue, fixture, published } = yield* make({
        broker: (driver) => ({
          publish: (messages) => (down ? Effect.fail("down") : driver.publish(messages))
        })
      })
      yield* Effect.flip(enqueue(keyed("a")))
      down = false
      yield* fixture.clearCalls
      assert.strictEqual(yield* enqueue(keyed("b")), "a")
      assert.deepStrictEqual(called(), ["create", "publish", "markPublished"])
      const [envelope] = published()
      assert.strictEqual(envelope?.id, "a")
      assert.strictEqual((yield* TaskMessage.decode(envelope?.body)).id, "a")
    })
  )

  it.effect("is not lost when its reservation is found just before the end of its time", () =>
    Effect.gen(function* () {
      let publish: Effect.Effect<unknown, string> = Effect.fail("down")
      const { enqueue, fixture } = yield* make({
        broker: (driver) => ({
          publish: (messages) => Effect.andThen(publish, driver.publish(messages))
        })
      })
      yield* Effect.flip(enqueue(keyed("a")))
      yield* TestClock.adjust("59 minutes")
      publish = Effect.andThen(TestClock.adjust("2 minutes"), fixture.driver.sweep(10))
      assert.strictEqual(yield* enqueue(keyed("b")), "a")
      assert.strictEqual((yield* fixture.driver.read(["a"]))[0]?.state, "PENDING")
    })
  )

  it.effect("fails with IdempotencyConflict for another payload", () =>
    Effect.gen(function* () {
      const { called, enqueue, fixture } = yield* make()
      yield* enqueue(keyed("a"))
      yield* fixture.clearCalls
      const error = yield* Effect.flip(enqueue(keyed("b", "h2")))
      assert(error._tag === "IdempotencyConflict")
      assert.deepInclude(error, { taskId: "a", taskName: "sum", key: "k1" })
      assert.deepStrictEqual(called(), ["create"])
    })
  )

  it.effect("fails with BackendNotConfigured without a backend", () =>
    Effect.gen(function* () {
      const { called, fixture } = yield* make()
      const backend = yield* Effect.provide(Backend.Backend, Backend.layerNotConfigured)
      const error = yield* Effect.flip(
        Effect.withFiber((fiber) => enqueueIn(fiber, { backend, broker: fixture.broker }, keyed("a")))
      )
      assert.strictEqual(error._tag, "BackendNotConfigured")
      assert.deepStrictEqual(called(), [])
    })
  )
})

describe("over a fused store", () => {
  for (const [what, item] of [
    ["without a key", prepared("a")],
    ["with a key", keyed("a")]
  ] as const) {
    it.effect(`a task ${what} is one call`, () =>
      Effect.gen(function* () {
        const { called, enqueue } = yield* make({ fused: true })
        assert.strictEqual(yield* enqueue(item), "a")
        assert.deepStrictEqual(called(), ["enqueue"])
      })
    )
  }

  it.effect("a taken key leads to the task that holds it", () =>
    Effect.gen(function* () {
      const { called, enqueue, fixture } = yield* make({ fused: true })
      yield* enqueue(keyed("a"))
      yield* fixture.clearCalls
      assert.strictEqual(yield* enqueue(keyed("b")), "a")
      assert.deepStrictEqual(called(), ["enqueue"])
    })
  )

  it.effect("an unpublished reservation is published and marked", () =>
    Effect.gen(function* () {
      const { called, enqueue, fixture, published } = yield* make({ fused: true })
      yield* fixture.create("a", {
        key: "k1",
        payloadHash: "h1",
        incarnation: "first1",
        reservedMillis: 1_000
      })
      assert.strictEqual(yield* enqueue(keyed("b")), "a")
      assert.deepStrictEqual(called(), ["enqueue", "create", "publish", "markPublished"])
      assert.deepInclude(published()[0], { id: "a", incarnation: "first1" })
    })
  )
})

describe("enqueueAll", () => {
  it.effect("makes one call for each step", () =>
    Effect.gen(function* () {
      const { called, enqueueAll } = yield* make()
      const exits = yield* enqueueAll(["a", "b", "c"].map((id) => prepared(id)))
      assert.deepStrictEqual(exits, [Exit.succeed("a"), Exit.succeed("b"), Exit.succeed("c")])
      assert.deepStrictEqual(called(), ["create", "publish", "markPublished"])
    })
  )

  it.effect("marks only the records of published messages", () =>
    Effect.gen(function* () {
      const { enqueueAll, fixture } = yield* make({
        broker: (driver) => ({
          isPermanent: () => true,
          publish: (messages) =>
            messages.some(({ id }) => id === "b") ? Effect.fail("refused") : driver.publish(messages)
        })
      })
      const exits = yield* enqueueAll(["a", "b", "c"].map((id) => prepared(id)))
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true])
      assert.deepStrictEqual(fixture.items("markPublished"), [
        { id: "a", incarnation: "", generation: 0 },
        { id: "c", incarnation: "", generation: 0 }
      ])
    })
  )

  it.effect("answers each task with a key on its own", () =>
    Effect.gen(function* () {
      const { enqueueAll } = yield* make()
      const exits = yield* enqueueAll([keyed("a"), keyed("b"), keyed("c", "h2")])
      assert.deepStrictEqual(exits.slice(0, 2), [Exit.succeed("a"), Exit.succeed("a")])
      assert.isTrue(Exit.isFailure(exits[2]!))
    })
  )
})
