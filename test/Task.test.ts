import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, RetryPolicy, Task, Worker } from "chicory"
import type { NewRecord } from "chicory/driver"
import { Cause, DateTime, Effect, Exit, Fiber, Layer, Option, Schema, type Scope } from "effect"
import { TestClock } from "effect/testing"
import type { TaskMessage } from "../src/TaskMessage.ts"
import * as MemoryFixture from "./support/memoryFixture.ts"
import {
  fork,
  exitOf,
  advance,
  reasonOf,
  startWorker as work,
  assertPending
} from "./support/memoryFixture.ts"

const Add = Task.make("add", { payload: { a: Schema.Number, b: Schema.Number }, success: Schema.Number })
const Keyed = Task.make("keyed", {
  payload: { order: Schema.String, amount: Schema.Number },
  success: Schema.String,
  idempotencyKey: ({ order }) => order
})
const one = { a: 1, b: 2 }

type Services = Scope.Scope | Backend.Backend | Broker.Broker
type Body = (on: MemoryFixture.MemoryFixture) => Effect.fn.Return<void, unknown, Services>

/** A test on memory stores whose calls are counted. */
const test = (name: string, body: Body, options?: MemoryFixture.Options) =>
  it.effect(name, () =>
    Effect.flatMap(MemoryFixture.make(options), (on) =>
      Effect.gen(() => body(on)).pipe(Effect.provideContext(on.context))
    )
  )

const nothingEnqueued = (on: MemoryFixture.MemoryFixture) =>
  Effect.gen(function* () {
    assert.strictEqual(on.count("publish", "create", "enqueue"), 0)
    const [counts] = yield* Broker.counts(["default"])
    assert.deepStrictEqual(counts, { ready: 0, delayed: 0, claimed: 0 })
  })

interface Message extends Omit<TaskMessage, "payload"> {
  readonly payload: Readonly<Record<string, number>>
}

/** What is claimed from a queue, in order, as the messages say. */
const claimed = (on: MemoryFixture.MemoryFixture, queue = "default") =>
  Effect.map(
    on.brokerDriver.claim({ queues: [queue], max: 100, leaseMillis: 60_000, worker: "w1" }),
    (deliveries) => deliveries.map(({ body }) => JSON.parse(String(body)) as Message)
  )

describe.each([
  ["in two steps", {}],
  ["fused", { fused: true }]
])("delay, %s", (_, options) => {
  const each = (name: string, body: Body) => test(name, body, options)

  each("gives a handle whose task the store has", function* (on) {
    yield* TestClock.setTime(1000)
    const result = yield* Add.delay(one)
    const task = Option.getOrThrow(yield* AsyncResult.poll(result))
    assert.strictEqual(task.state, "PENDING")
    assert.strictEqual(task.taskName, "add")
    assert.deepStrictEqual(task.enqueuedAt, Option.some(DateTime.makeUnsafe(1000)))
    const [message, ...more] = yield* claimed(on)
    assert.deepStrictEqual(more, [])
    assert.deepStrictEqual(message, {
      v: 1,
      id: result.taskId,
      generation: 0,
      task: "add",
      queue: "default",
      retries: 0,
      priority: 100,
      payload: { a: 1, b: 2 }
    })
  })

  each("send does the same, and gives the id", function* () {
    const id = yield* Add.send(one)
    assert.strictEqual(yield* AsyncResult.state(Add.result(id)), "PENDING")
    assert.isTrue(Option.isSome(yield* AsyncResult.poll(Add.result(id))))
  })

  each("ids are unique, and sort by the time they were made", function* () {
    const first = yield* Add.send(one)
    const second = yield* Add.send(one)
    yield* TestClock.adjust("1 second")
    const third = yield* Add.send(one)
    assert.notStrictEqual(first, second)
    assert.isTrue(third > first && third > second)
    assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })

  each("messages are claimed by priority, then in their order", function* (on) {
    const High = Task.make("high", { payload: { n: Schema.Number }, priority: 200 })
    yield* Add.delay({ a: 1, b: 0 })
    yield* Add.delay({ a: 2, b: 0 }, { priority: 255 })
    yield* Add.delay({ a: 3, b: 0 }, { priority: 0 })
    yield* High.delay({ n: 4 })
    yield* Add.delay({ a: 5, b: 0 })
    const messages = yield* claimed(on)
    assert.deepStrictEqual(
      messages.map(({ payload }) => payload["a"] ?? payload["n"]),
      [2, 4, 1, 5, 3]
    )
  })

  each("a delayed task is due after its delay", function* (on) {
    yield* Add.delay(one, { delay: "10 seconds" })
    yield* advance("9999 millis")
    assert.deepStrictEqual(yield* claimed(on), [])
    yield* advance("1 millis")
    assert.lengthOf(yield* claimed(on), 1)
  })

  each("a task may be due at a time", function* (on) {
    yield* TestClock.setTime(5000)
    yield* Add.delay(one, { at: DateTime.makeUnsafe(8000) })
    yield* Add.delay(one, { at: new Date(9000) })
    yield* advance("2999 millis")
    assert.deepStrictEqual(yield* claimed(on), [])
    yield* advance("1 millis")
    assert.lengthOf(yield* claimed(on), 1)
    yield* advance("1 second")
    assert.lengthOf(yield* claimed(on), 1)
  })

  each("a time that has passed is now", function* (on) {
    yield* TestClock.setTime(5000)
    yield* Add.delay(one, { at: DateTime.makeUnsafe(1000) })
    assert.lengthOf(yield* claimed(on), 1)
  })

  each("a call may name another queue than its task's", function* (on) {
    const Mail = Task.make("mail", { queue: "mails" })
    assert.strictEqual(Mail.queue, "mails")
    yield* Mail.delay()
    yield* Mail.delay(undefined, { queue: "urgent" })
    assert.lengthOf(yield* claimed(on, "mails"), 1)
    const [urgent] = yield* claimed(on, "urgent")
    assert.strictEqual(urgent?.queue, "urgent")
  })

  each("a task that waits longer than its expiry ends as Expired", function* () {
    const Brief = Task.make("brief", { expires: "1 minute" })
    const byTask = yield* Brief.delay()
    const byCall = yield* Brief.delay(undefined, { expires: "10 seconds" })
    yield* advance("10 seconds")
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(byCall)))
    assert(reason._tag === "Expired")
    assert.deepStrictEqual(reason.expiredAt, DateTime.makeUnsafe(10_000))
    assert.strictEqual(yield* AsyncResult.state(byTask), "PENDING")
    yield* advance("50 seconds")
    assert.strictEqual(reasonOf(yield* Effect.flip(AsyncResult.get(byTask)))._tag, "Expired")
  })

  each("a payload that does not encode is refused, and nothing is enqueued", function* (on) {
    const error = yield* Effect.flip(Add.delay({ a: 1, b: "two" as never }))
    assert(error instanceof Task.EncodeError)
    assert.strictEqual(error.taskName, "add")
    assert.isAbove(error.taskId.length, 0)
    assert.match(error.message, /^the payload of add does not encode: .*/s)
    assert.include(error.issue, `["b"]`)
    yield* nothingEnqueued(on)
  })

  each("a payload that is too large is refused, and nothing is enqueued", function* (on) {
    const Text = Task.make("text", { payload: { text: Schema.String } })
    const limit = 4 * 1024 * 1024
    const error = yield* Effect.flip(Text.delay({ text: "é".repeat(limit / 2) }))
    assert(error instanceof Task.PayloadTooLarge)
    assert.strictEqual(error.limit, limit)
    assert.strictEqual(error.bytes, limit + `{"text":""}`.length)
    assert.include(error.message, "store it elsewhere and send its address")
    yield* nothingEnqueued(on)
    yield* Text.delay({ text: "x".repeat(limit - `{"text":""}`.length) })
  })

  class Point extends Schema.Class<Point>("Point")({
    x: Schema.Number,
    y: Schema.Number.pipe(Schema.withConstructorDefault(Effect.succeed(7)))
  }) {
    get sum() {
      return this.x + this.y
    }
  }

  each(
    "a class is a payload: plain fields and instances alike, with the defaults of its constructor",
    function* (on) {
      const Sum = Task.make("sum", { payload: Point, success: Schema.Number })
      yield* work(
        on,
        Sum,
        Sum.toLayer((point) => Effect.succeed(point.sum))
      )
      const plain = yield* Sum.delay({ x: 1 })
      const instance = yield* Sum.delay(new Point({ x: 1, y: 2 }))
      assert.deepStrictEqual(yield* AsyncResult.all([plain, instance]), [8, 3])
    }
  )

  each("a union is a payload", function* (on) {
    const Shape = Schema.Union([
      Schema.TaggedStruct("Circle", { r: Schema.Number }),
      Schema.TaggedStruct("Square", { side: Schema.BigInt })
    ])
    const Area = Task.make("area", { payload: Shape, success: Schema.String })
    yield* work(
      on,
      Area,
      Area.toLayer((shape) => Effect.succeed(shape._tag === "Circle" ? `r${shape.r}` : `s${shape.side}`))
    )
    const results = yield* Area.delayAll([
      { _tag: "Circle", r: 1.5 },
      { _tag: "Square", side: 2n ** 70n }
    ])
    assert.deepStrictEqual(yield* AsyncResult.all(results), ["r1.5", `s${2n ** 70n}`])
  })

  each("a task without a payload takes none", function* (on) {
    const Tick = Task.make("tick")
    yield* work(
      on,
      Tick,
      Tick.toLayer(() => Effect.void)
    )
    assert.isUndefined(yield* AsyncResult.get(yield* Tick.delay()))
  })

  describe("with an idempotency key", () => {
    each("the same key gives the same task", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      const second = yield* Keyed.delay({ order: "o1", amount: 1 })
      const other = yield* Keyed.delay({ order: "o2", amount: 1 })
      assert.strictEqual(first.taskId, second.taskId)
      assert.notStrictEqual(first.taskId, other.taskId)
      assert.lengthOf(yield* claimed(on), 2)
    })

    each("also when it is given again at the same time", function* (on) {
      const ids = yield* Effect.forEach(
        Array.from({ length: 50 }, () => 0),
        () => Keyed.send({ order: "o1", amount: 1 }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(ids).size, 1)
      yield* work(
        on,
        Keyed,
        Keyed.toLayer(({ order }) => Effect.succeed(order))
      )
      yield* advance("1 second")
      const done = Option.getOrThrow(yield* AsyncResult.poll(Keyed.result(ids[0]!)))
      assert.strictEqual(done.attempts, 1)
    })

    each("also after the task has ended", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      yield* work(
        on,
        Keyed,
        Keyed.toLayer(({ order }) => Effect.succeed(order))
      )
      assert.strictEqual(yield* AsyncResult.get(first), "o1")
      const again = yield* Keyed.delay({ order: "o1", amount: 1 })
      assert.strictEqual(again.taskId, first.taskId)
      assert.strictEqual(yield* AsyncResult.get(again), "o1")
      assert.deepStrictEqual(yield* claimed(on), [])
    })

    each("with another payload is a conflict, and nothing is enqueued", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      const error = yield* Effect.flip(Keyed.delay({ order: "o1", amount: 2 }))
      assert(error instanceof Task.IdempotencyConflict)
      assert.strictEqual(error.taskId, first.taskId)
      assert.strictEqual(error.key, "o1")
      assert.include(error.message, `holds "o1" with another payload`)
      assert.lengthOf(yield* claimed(on), 1)
    })

    each("belongs to the task's name: another task may have the same", function* (on) {
      const Other = Task.make("other", {
        payload: { order: Schema.String, amount: Schema.Number },
        idempotencyKey: ({ order }) => order
      })
      const first = yield* Keyed.send({ order: "o1", amount: 1 })
      const second = yield* Other.send({ order: "o1", amount: 1 })
      assert.notStrictEqual(first, second)
      assert.lengthOf(yield* claimed(on), 2)
    })

    each("is free again after forget", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      yield* AsyncResult.forget(first)
      const second = yield* Keyed.delay({ order: "o1", amount: 2 })
      assert.notStrictEqual(first.taskId, second.taskId)
      assert.lengthOf(yield* claimed(on), 2)
    })

    each("is free again when the retention has run out", function* (on) {
      const Short = Task.make("short", { retention: "1 minute", idempotencyKey: () => "k" })
      const first = yield* Short.delay()
      yield* work(
        on,
        Short,
        Short.toLayer(() => Effect.void)
      )
      yield* AsyncResult.get(first)
      yield* advance("59 seconds")
      assert.strictEqual((yield* Short.delay()).taskId, first.taskId)
      yield* advance("1 second")
      assert.notStrictEqual((yield* Short.delay()).taskId, first.taskId)
    })

    each("given by the value that the handler gets, defaults included", function* () {
      const Defaulted = Task.make("defaulted", { payload: Point, idempotencyKey: ({ sum }) => `${sum}` })
      const first = yield* Defaulted.send({ x: 1 })
      assert.strictEqual(yield* Defaulted.send({ x: 1, y: 7 }), first)
    })
  })

  describe("with an id of one's own", () => {
    each("the same id gives the same task", function* (on) {
      const first = yield* Add.delay(one, { id: "my id" })
      assert.strictEqual(first.taskId, "my id")
      const second = yield* Add.delay(one, { id: "my id" })
      assert.strictEqual(second.taskId, "my id")
      assert.lengthOf(yield* claimed(on), 1)
    })

    each("another payload is a conflict", function* () {
      yield* Add.delay(one, { id: "my id" })
      const error = yield* Effect.flip(Add.delay({ a: 9, b: 9 }, { id: "my id" }))
      assert(error instanceof Task.IdempotencyConflict)
      assert.strictEqual(error.key, "my id")
    })

    each("an id that another task has is a conflict", function* (on) {
      const Other = Task.make("other", { payload: { a: Schema.Number, b: Schema.Number } })
      yield* Other.delay(one, { id: "my id" })
      const error = yield* Effect.flip(Add.delay(one, { id: "my id" }))
      assert(error instanceof Task.IdempotencyConflict)
      assert.strictEqual(error.taskId, "my id")
      assert.lengthOf(yield* claimed(on), 1)
    })

    each("is free again when its task has ended and was forgotten", function* (on) {
      yield* Add.delay(one, { id: "my id" })
      yield* work(
        on,
        Add,
        Add.toLayer(({ a, b }) => Effect.succeed(a + b))
      )
      assert.strictEqual(yield* AsyncResult.get(Add.result("my id")), 3)
      yield* AsyncResult.forget(Add.result("my id"))
      const again = yield* Add.delay({ a: 2, b: 2 }, { id: "my id" })
      yield* MemoryFixture.flush
      assert.strictEqual(yield* AsyncResult.get(again), 4)
    })
  })

  describe("delayAll", () => {
    each("enqueues in bulk: few calls for many", function* (on) {
      const results = yield* Add.delayAll(Array.from({ length: 2500 }, (_, a) => ({ a, b: 0 })))
      assert.strictEqual(new Set(results.map(({ taskId }) => taskId)).size, 2500)
      const [counts] = yield* Broker.counts(["default"])
      assert.strictEqual(counts?.ready, 2500)
      assert.isAtMost(on.count("publish", "create", "enqueue"), 24)
    })

    each("the handles are in the order of their payloads", function* (on) {
      yield* work(
        on,
        Add,
        Add.toLayer(({ a, b }) => Effect.succeed(a + b))
      )
      const results = yield* Add.delayAll([1, 2, 3].map((a) => ({ a, b: 10 })))
      assert.deepStrictEqual(yield* AsyncResult.all(results), [11, 12, 13])
    })

    each("of nothing is nothing", function* (on) {
      assert.deepStrictEqual(yield* Add.delayAll([]), [])
      yield* nothingEnqueued(on)
    })

    each("takes its payloads as they are asked for", function* (on) {
      function* payloads() {
        for (let a = 0; a < 1000; a++) yield { a, b: 0 }
        throw new Error("the source broke")
      }
      const exit = yield* Effect.exit(Add.delayAll(payloads()))
      assert.isTrue(Exit.hasDies(exit))
      const [counts] = yield* Broker.counts(["default"])
      // in batches of 256
      assert.strictEqual(counts?.ready, 768)
      assert.isAbove(on.count("publish", "enqueue"), 0)
    })

    each("stops at a payload that does not encode, and tells which were accepted", function* (on) {
      const payloads = [
        { a: 1, b: 1 },
        { a: 2, b: 2 },
        { a: 3, b: "three" as never },
        { a: 4, b: 4 }
      ]
      const error = yield* Effect.flip(Add.delayAll(payloads))
      assert(error instanceof Task.PartialEnqueue)
      assert.instanceOf(error.error, Task.EncodeError)
      assert.match(error.message, /^2 tasks were enqueued, then: the payload of add does not encode/)
      const messages = yield* claimed(on)
      assert.deepStrictEqual(
        messages.map(({ id }) => id),
        [...error.accepted]
      )
    })

    each("with a key gives what is there", function* (on) {
      const [a, b, c] = yield* Keyed.delayAll([
        { order: "o1", amount: 1 },
        { order: "o2", amount: 1 },
        { order: "o1", amount: 1 }
      ])
      assert.strictEqual(a?.taskId, c?.taskId)
      assert.notStrictEqual(a?.taskId, b?.taskId)
      yield* work(
        on,
        Keyed,
        Keyed.toLayer(({ order }) => Effect.succeed(order))
      )
      yield* advance("1 second")
      assert.strictEqual(Option.getOrThrow(yield* AsyncResult.poll(a!)).attempts, 1)
    })

    each("a conflict stops it, and what was accepted is told", function* () {
      const error = yield* Effect.flip(
        Keyed.delayAll([
          { order: "o1", amount: 1 },
          { order: "o1", amount: 2 },
          { order: "o2", amount: 1 }
        ])
      )
      assert(error instanceof Task.PartialEnqueue)
      assert.instanceOf(error.error, Task.IdempotencyConflict)
      assert.lengthOf(error.accepted, 2)
    })

    each("a bug in what makes the key is a defect, and no payload is passed over", function* () {
      const Buggy = Task.make("buggy", {
        payload: { n: Schema.Number },
        idempotencyKey: ({ n }) => {
          if (n === 2) throw new TypeError("no key for 2")
          return `${n}`
        }
      })
      const exit = yield* Effect.exit(Buggy.delayAll([{ n: 1 }, { n: 2 }, { n: 3 }]))
      assert.isTrue(Exit.hasDies(exit))
    })
  })

  each("1,000 concurrent delays are a handful of calls", function* (on) {
    yield* Effect.forEach(
      Array.from({ length: 1000 }, (_, a) => a),
      (a) => Add.delay({ a, b: 0 }),
      { concurrency: "unbounded" }
    )
    const [counts] = yield* Broker.counts(["default"])
    assert.strictEqual(counts?.ready, 1000)
    assert.isAtMost(on.count("publish", "create", "enqueue", "markPublished"), 16)
  })
})

describe("a store that is slow or fails", () => {
  const slow: MemoryFixture.Options = {
    broker: (driver) => ({ publish: (messages) => Effect.delay(driver.publish(messages), "1 second") })
  }
  test(
    "holds a faster producer back: a delay returns when the store has the task",
    function* (on) {
      const sending = yield* fork(
        Effect.forEach(
          Array.from({ length: 5000 }, (_, a) => a),
          (a) => Add.send({ a, b: 0 }),
          { concurrency: "unbounded" }
        )
      )
      // 4 calls of 256 on their way
      assert.strictEqual(on.count("publish"), 4)
      assert.isAtMost(on.items("publish").length, 1024)
      yield* advance("4 seconds")
      assertPending(sending)
      yield* advance("1 second")
      assert.lengthOf(yield* Fiber.join(sending), 5000)
    },
    slow
  )

  test(
    "a caller that is interrupted does not fail the others, and what was not sent yet is not sent",
    function* (on) {
      const first = yield* fork(Add.send(one))
      const second = yield* Effect.forkChild(Add.send({ a: 2, b: 2 }))
      const third = yield* fork(Add.send({ a: 3, b: 3 }))
      yield* Fiber.interrupt(first)
      yield* advance("1 second")
      assert.isTrue(Exit.isSuccess(exitOf(second)))
      assert.isTrue(Exit.isSuccess(exitOf(third)))
      assert.lengthOf(on.items("publish"), 3)
    },
    slow
  )

  test(
    "one message that the broker refuses for good fails its own caller alone",
    function* (on) {
      const exits = yield* Effect.forEach(
        Array.from({ length: 100 }, (_, a) => a),
        (a) => Effect.exit(Add.send({ a, b: 0 })),
        { concurrency: "unbounded" }
      )
      const failed = exits.flatMap((exit, a) => (Exit.isFailure(exit) ? [a] : []))
      assert.deepStrictEqual(failed, [42])
      const error = Option.getOrThrow(Exit.findErrorOption(exits[42]!))
      assert(error instanceof Broker.BrokerError)
      assert.isFalse(error.retryable)
      const [counts] = yield* Broker.counts(["default"])
      assert.strictEqual(counts?.ready, 99)
      assert.isAtMost(on.count("publish"), 16)
    },
    {
      broker: (driver) => ({
        publish: (messages) =>
          messages.some(({ body }) => body.includes(`"a":42`))
            ? Effect.fail("refused")
            : driver.publish(messages),
        isPermanent: () => true
      })
    }
  )

  test(
    "delayAll tells which were accepted when the broker refuses one",
    function* () {
      const error = yield* Effect.flip(Add.delayAll([1, 2, 42, 3].map((a) => ({ a, b: 0 }))))
      assert(error instanceof Task.PartialEnqueue)
      assert.instanceOf(error.error, Broker.BrokerError)
      assert.lengthOf(error.accepted, 3)
    },
    {
      broker: (driver) => ({
        publish: (messages) =>
          messages.some(({ body }) => body.includes(`"a":42`))
            ? Effect.fail("refused")
            : driver.publish(messages),
        isPermanent: () => true
      })
    }
  )

  test(
    "an error that may heal is told to every caller of its batch, who may call again",
    function* () {
      const exits = yield* Effect.forEach([1, 2, 3], (a) => Effect.exit(Add.send({ a, b: 0 })), {
        concurrency: "unbounded"
      })
      for (const exit of exits) {
        const error = Option.getOrThrow(Exit.findErrorOption(exit))
        assert(error instanceof Broker.BrokerError)
        assert.isTrue(error.retryable)
      }
    },
    { broker: () => ({ publish: () => Effect.fail("cut off") }) }
  )

  test(
    "a driver that dies is an error of the broker",
    function* () {
      const error = yield* Effect.flip(Add.send(one))
      assert(error instanceof Broker.BrokerError)
      assert.include(error.message, "memory broker: publish failed")
      assert.include(error.message, "a bug")
    },
    { broker: () => ({ publish: () => Effect.die(new Error("a bug")) }) }
  )

  test(
    "a driver that throws is an error of the broker, and the next call is served",
    function* () {
      const error = yield* Effect.flip(Add.send(one))
      assert(error instanceof Broker.BrokerError)
      assert.include(error.message, "a bug")
      for (let n = 0; n < 10; n++) yield* Add.send(one)
    },
    {
      broker: (driver) => {
        let calls = 0
        return {
          publish: (messages) => {
            if (calls++ === 0) throw new Error("a bug")
            return driver.publish(messages)
          }
        }
      }
    }
  )

  const failing = (times: number): MemoryFixture.Options => ({
    broker: (driver) => {
      let failures = 0
      return {
        publish: (messages) => (failures++ < times ? Effect.fail("cut off") : driver.publish(messages))
      }
    }
  })

  test(
    "a crash between the reservation of a key and its message strands nothing: the next call sends it, under the same id",
    function* (on) {
      const error = yield* Effect.flip(Keyed.delay({ order: "o1", amount: 1 }))
      assert.instanceOf(error, Broker.BrokerError)
      assert.deepStrictEqual(yield* claimed(on), [])
      const [reserved] = on.items("create") as ReadonlyArray<NewRecord>
      const second = yield* Keyed.delay({ order: "o1", amount: 1 })
      assert.strictEqual(second.taskId, reserved?.id)
      const [message, ...more] = yield* claimed(on)
      assert.strictEqual(message?.id, second.taskId)
      assert.deepStrictEqual(more, [])
      yield* Keyed.delay({ order: "o1", amount: 1 })
      assert.deepStrictEqual(yield* claimed(on), [])
    },
    failing(1)
  )

  test(
    "a crash between the message of a key and its mark sends the message twice, and the task runs once",
    function* (on) {
      assert.instanceOf(yield* Effect.flip(Keyed.delay({ order: "o1", amount: 1 })), Backend.BackendError)
      let runs = 0
      yield* work(
        on,
        Keyed,
        Keyed.toLayer(({ order }) => Effect.sync(() => `${order} ${++runs}`))
      )
      const result = yield* Keyed.delay({ order: "o1", amount: 1 })
      yield* advance("1 minute")
      assert.strictEqual(yield* AsyncResult.get(result), "o1 1")
      assert.strictEqual(runs, 1)
    },
    {
      backend: (driver) => {
        let failures = 0
        return {
          markPublished: (ids) => (failures++ === 0 ? Effect.fail("cut off") : driver.markPublished(ids))
        }
      }
    }
  )

  test(
    "a crash between message and record loses nothing: the run makes the record",
    function* (on) {
      const error = yield* Effect.flip(Add.send(one))
      assert.instanceOf(error, Backend.BackendError)
      const [message] = yield* Effect.map(
        on.brokerDriver.claim({ queues: ["default"], max: 1, leaseMillis: 1, worker: "w" }),
        (deliveries) => deliveries.map(({ id }) => id!)
      )
      yield* advance("1 second")
      yield* work(
        on,
        Add,
        Add.toLayer(({ a, b }) => Effect.succeed(a + b))
      )
      yield* advance("1 second")
      assert.strictEqual(yield* AsyncResult.get(Add.result(message!)), 3)
    },
    { backend: () => ({ create: () => Effect.fail("cut off") }) }
  )
})

describe("what a broker cannot do", () => {
  const poor: MemoryFixture.Options = {
    broker: (driver) => ({
      capabilities: { ...driver.capabilities, priorities: 1, maxDelayMillis: 60_000 }
    })
  }
  test(
    "is refused, and nothing is enqueued",
    function* (on) {
      const Urgent = Task.make("urgent", { priority: 200 })
      const refused = [
        yield* Effect.flip(Add.delay(one, { priority: 1 })),
        yield* Effect.flip(Urgent.delay()),
        yield* Effect.flip(Add.delay(one, { delay: "61 seconds" })),
        yield* Effect.flip(Add.delay(one, { at: 60_001 }))
      ]
      const messages = refused.map((error) => {
        assert(error instanceof Task.Unsupported)
        return error.message
      })
      assert.deepStrictEqual(messages, [
        "the memory broker does not support priorities",
        "the memory broker does not support priorities",
        "the memory broker does not support a delay of more than 60000 milliseconds",
        "the memory broker does not support a delay of more than 60000 milliseconds"
      ])
      const many = yield* Effect.flip(Add.delayAll([one, one], { priority: 1 }))
      assert.instanceOf(many.error, Task.Unsupported)
      assert.deepStrictEqual(many.accepted, [])
      yield* nothingEnqueued(on)
      yield* Add.delay(one, { delay: "1 minute" })
    },
    poor
  )
})

describe("without a backend", () => {
  const fireAndForget = (name: string, body: () => Effect.fn.Return<void, unknown, Services>) =>
    it.effect(name, () =>
      Effect.gen(body).pipe(Effect.provide(Layer.mergeAll(Backend.layerNotConfigured, Broker.layerMemory)))
    )

  fireAndForget("a task is sent", function* () {
    yield* Add.send(one)
    assert.lengthOf(yield* Add.delayAll([one, one]), 2)
    const [counts] = yield* Broker.counts(["default"])
    assert.strictEqual(counts?.ready, 3)
  })

  fireAndForget("an id or a key needs one, and nothing is enqueued", function* () {
    for (const error of [
      yield* Effect.flip(Add.delay(one, { id: "my id" })),
      yield* Effect.flip(Keyed.delay({ order: "o1", amount: 1 })),
      (yield* Effect.flip(Keyed.delayAll([{ order: "o1", amount: 1 }]))).error
    ]) {
      assert(error instanceof Backend.BackendNotConfigured)
      assert.include(error.message, "needs a backend")
    }
    const [counts] = yield* Broker.counts(["default"])
    assert.strictEqual(counts?.ready, 0)
  })
})

describe("options out of range", () => {
  const thrown = (make: () => unknown): string => {
    try {
      make()
    } catch (error) {
      assert.instanceOf(error, RangeError)
      return error.message
    }
    return assert.fail("it is refused")
  }

  const tasks: ReadonlyArray<readonly [what: string, make: () => unknown, message: string]> = [
    ["an empty name", () => Task.make(""), "the name must be a text of 1 to 255 characters"],
    [
      "a name without end",
      () => Task.make("x".repeat(256)),
      "the name must be a text of 1 to 255 characters"
    ],
    [
      "an empty queue",
      () => Task.make("t", { queue: "" }),
      `Task.make("t"): queue must be a text of 1 to 255`
    ],
    [
      "a priority of 256",
      () => Task.make("t", { priority: 256 }),
      "priority must be a whole number from 0 to 255"
    ],
    [
      "a priority of -1",
      () => Task.make("t", { priority: -1 }),
      "priority must be a whole number from 0 to 255"
    ],
    [
      "a priority of 1.5",
      () => Task.make("t", { priority: 1.5 }),
      "priority must be a whole number from 0 to 255"
    ],
    [
      "a timeout of zero",
      () => Task.make("t", { timeout: 0 }),
      "timeout must be a finite duration above zero"
    ],
    [
      "an infinite timeout",
      () => Task.make("t", { timeout: "Infinity" }),
      "timeout must be a finite duration"
    ],
    [
      "a negative expiry",
      () => Task.make("t", { expires: -1 }),
      "expires must be a finite duration above zero"
    ],
    [
      "an expiry that is none",
      () => Task.make("t", { expires: "soon" as never }),
      "expires must be a finite"
    ],
    [
      "a retention of zero",
      () => Task.make("t", { retention: 0 }),
      "retention must be a duration above zero"
    ],
    [
      "no crash at all",
      () => Task.make("t", { maxCrashes: 0 }),
      "maxCrashes must be a whole number from 1 on"
    ],
    [
      "retries of what must not run twice",
      () =>
        Task.make("t", { delivery: "at-most-once", retry: RetryPolicy.fixed({ maxRetries: 1, delay: 0 }) }),
      `"at-most-once" never runs a task twice`
    ],
    [
      "retried defects of what must not run twice",
      () => Task.make("t", { delivery: "at-most-once", retryDefects: true }),
      `"at-most-once" never runs a task twice`
    ],
    [
      "a policy of one's own with half a retry",
      () => Task.make("t", { retry: { ...RetryPolicy.never, maxRetries: 0.5 } }),
      `Task.make("t"): retry: maxRetries must be a whole number from 0 on`
    ],
    [
      "negative retries",
      () => RetryPolicy.fixed({ maxRetries: -1, delay: "1 second" }),
      "RetryPolicy.fixed: maxRetries must be a whole number from 0 on"
    ],
    [
      "a negative delay",
      () => RetryPolicy.linear({ maxRetries: 1, delay: "-1 seconds" }),
      "RetryPolicy.linear: delay must be a finite duration from zero on"
    ],
    [
      "an infinite delay",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: "Infinity" }),
      "RetryPolicy.exponential: delay must be a finite duration from zero on"
    ],
    [
      "a negative bound of the delays",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: 1, maxDelay: -1 }),
      "RetryPolicy.exponential: maxDelay must be a finite duration from zero on"
    ],
    [
      "a factor of zero",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: 1, factor: 0 }),
      "RetryPolicy.exponential: factor must be a number above zero"
    ],
    [
      "a factor that is no number",
      () => RetryPolicy.exponential({ maxRetries: 1, delay: 1, factor: Number.NaN }),
      "RetryPolicy.exponential: factor must be a number above zero"
    ],
    [
      "a rule with a negative delay",
      () =>
        Task.make("t", {
          error: Schema.TaggedStruct("Busy", {}),
          retry: { ...RetryPolicy.fixed({ maxRetries: 1, delay: 1 }), byTag: { Busy: -5 } }
        }),
      `Task.make("t"): retry: byTag.Busy must be a finite duration from zero on`
    ],
    [
      "retries of a schedule beyond all numbers",
      () => RetryPolicy.fromSchedule(RetryPolicy.never.schedule, { maxRetries: Number.POSITIVE_INFINITY }),
      "RetryPolicy.fromSchedule: maxRetries must be a whole number from 0 on"
    ]
  ]
  it.each(tasks.map(([what, make, message]) => [what, { make, message }] as const))(
    "%s throws where it is made",
    (_, { make, message }) => {
      assert.include(thrown(make), message)
    }
  )

  const calls: ReadonlyArray<readonly [what: string, options: Task.EnqueueOptions, message: string]> = [
    ["a negative delay", { delay: -1 }, "add: delay must be a finite duration from zero on"],
    ["an infinite delay", { delay: "Infinity" }, "add: delay must be a finite duration from zero on"],
    ["a delay that is none", { delay: "soon" as never }, "add: delay must be a finite duration from zero on"],
    ["both delay and at", { delay: 1, at: 1 }, "add: give either delay or at, not both"],
    ["a time that is none", { at: "soon" }, `add: at must be a date, but is "soon"`],
    ["an expiry of zero", { expires: 0 }, "add: expires must be a finite duration above zero"],
    ["a priority of 256", { priority: 256 }, "add: priority must be a whole number from 0 to 255"],
    ["an empty queue", { queue: "" }, "add: queue must be a text of 1 to 255 characters"],
    ["an empty id", { id: "" }, "add: id must be a text of 1 to 255 characters"]
  ]
  for (const [what, options, message] of calls) {
    test(`${what} is a defect of the call, and nothing is enqueued`, function* (on) {
      const calls: ReadonlyArray<Effect.Effect<unknown, unknown, Services>> = [
        Add.delay(one, options),
        Add.send(one, options),
        Add.delayAll([one], options)
      ]
      for (const call of calls) {
        const exit = yield* Effect.exit(call)
        assert(Exit.isFailure(exit))
        assert.isTrue(Cause.hasDies(exit.cause), "a defect")
        assert.include(String((Cause.squash(exit.cause) as Error).message), message)
      }
      yield* nothingEnqueued(on)
    })
  }

  const workers: ReadonlyArray<readonly [what: string, options: Worker.Options, message: string]> = [
    ["no slot", { concurrency: 0 }, "Worker.layer: concurrency must be a whole number from 1 on"],
    ["half a slot", { concurrency: 1.5 }, "Worker.layer: concurrency must be a whole number from 1 on"],
    ["a lease of zero", { lease: 0 }, "Worker.layer: lease must be a finite duration above zero"],
    ["an infinite lease", { lease: "Infinity" }, "Worker.layer: lease must be a finite duration above zero"],
    [
      "a negative drain",
      { drainTimeout: -1 },
      "Worker.layer: drainTimeout must be a finite duration from zero"
    ],
    ["no heartbeat", { heartbeat: 0 }, "Worker.layer: heartbeat must be a finite duration above zero"],
    [
      "a negative grace",
      { unknownTaskGrace: -1 },
      "Worker.layer: unknownTaskGrace must be a finite duration"
    ],
    ["an empty queue", { queues: [""] }, "Worker.layer: queues must be a text of 1 to 255 characters"]
  ]
  for (const [what, options, message] of workers) {
    test(`${what} is a defect where the worker's layer is built`, function* (on) {
      const layer = Worker.layer([Add], options).pipe(
        Layer.provide(Add.toLayer(({ a, b }) => Effect.succeed(a + b))),
        Layer.provide(on.layer)
      )
      const exit = yield* Effect.exit(Layer.build(layer))
      assert(Exit.isFailure(exit))
      assert.include(String((Cause.squash(exit.cause) as Error).message), message)
    })
  }

  test("a worker that has two tasks of one name is a defect", function* (on) {
    const layer = Worker.layer([Add, Task.make("add")]).pipe(
      Layer.provide(Add.toLayer(() => Effect.succeed(0))),
      Layer.provide(on.layer)
    )
    const exit = yield* Effect.exit(Layer.build(layer))
    assert(Exit.isFailure(exit))
    assert.include((Cause.squash(exit.cause) as Error).message, `two tasks are named "add"`)
  })

  test("a worker without a handler, where the compiler saw no names, is a defect", function* (on) {
    const tasks: Array<Task.Any> = [Add]
    const exit = yield* Effect.exit(Layer.build(Worker.layer(tasks).pipe(Layer.provide(on.layer))))
    assert(Exit.isFailure(exit))
    assert.include((Cause.squash(exit.cause) as Error).message, `there is no handler for "add"`)
  })
})

describe("a handler", () => {
  test("has a scope of its own for each attempt, which closes with it", function* (on) {
    const log: Array<string> = []
    const Scoped = Task.make("scoped", { success: Schema.Number })
    yield* work(
      on,
      Scoped,
      Scoped.toLayer(() =>
        Effect.gen(function* () {
          yield* Effect.acquireRelease(
            Effect.sync(() => log.push("open")),
            () => Effect.sync(() => log.push("close"))
          )
          log.push("run")
          return 1
        })
      )
    )
    yield* AsyncResult.get(yield* Scoped.delay())
    assert.deepStrictEqual(log, ["open", "run", "close"])
  })

  test("may not write another task's progress", function* (on) {
    const Other = Task.make("other", { progress: Schema.Number })
    const Mine = Task.make("mine")
    yield* work(
      on,
      Mine,
      Mine.toLayer(() => Other.progress(1))
    )
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(yield* Mine.delay())))
    assert(reason._tag === "Died")
    assert.include(
      String((reason.defect as Error).message),
      "other.progress was called in the handler of mine"
    )
  })

  test("that gives what does not encode has failed for good: the work is not run again", function* (on) {
    let runs = 0
    const Wrong = Task.make("wrong", {
      success: Schema.Number,
      retry: RetryPolicy.fixed({ maxRetries: 3, delay: 0 })
    })
    yield* work(
      on,
      Wrong,
      Wrong.toLayer(() => Effect.sync(() => (runs++, "text" as never)))
    )
    const waiting = yield* fork(Effect.flip(AsyncResult.get(yield* Wrong.delay())))
    yield* advance("1 minute")
    const reason = reasonOf(yield* Fiber.join(waiting))
    assert(reason._tag === "ResultInvalid")
    assert.strictEqual(reason.side, "worker")
    assert.strictEqual(runs, 1)
  })

  test("that gives more than a result may have has failed for good", function* (on) {
    const Large = Task.make("large", { success: Schema.String })
    yield* work(
      on,
      Large,
      Large.toLayer(() => Effect.succeed("x".repeat(4 * 1024 * 1024)))
    )
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(yield* Large.delay())))
    assert(reason._tag === "ResultInvalid")
    assert.include(reason.issue, "bytes, of at most 4194304")
  })
})
