import { assert, describe } from "@effect/vitest"
import { AsyncResult, Broker, Task } from "chicory"
import { DateTime, Effect, Exit, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Add, assertNothingEnqueued, claimAll, Keyed, onePayload } from "./support/enqueuing.ts"
import { advance, reasonOf, startWorker as work, flush } from "./support/memoryFixture.ts"
import { type Body, test } from "./support/memoryTest.ts"

describe.each([
  ["in two steps", {}],
  ["fused", { fused: true }]
])("delay, %s", (_, options) => {
  const each = (name: string, body: Body) => test(name, body, options)

  each("returns a handle to a task that the store has", function* (on) {
    yield* TestClock.setTime(1000)
    const result = yield* Add.delay(onePayload)
    const task = Option.getOrThrow(yield* AsyncResult.poll(result))
    assert.strictEqual(task.state, "PENDING")
    assert.strictEqual(task.taskName, "add")
    assert.deepStrictEqual(task.enqueuedAt, Option.some(DateTime.makeUnsafe(1000)))
    const [message, ...more] = yield* claimAll(on)
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

  each("send enqueues the same and returns the id", function* () {
    const id = yield* Add.send(onePayload)
    assert.strictEqual(yield* AsyncResult.state(Add.result(id)), "PENDING")
    assert.isTrue(Option.isSome(yield* AsyncResult.poll(Add.result(id))))
  })

  each("makes unique ids that sort by time", function* () {
    const first = yield* Add.send(onePayload)
    const second = yield* Add.send(onePayload)
    yield* TestClock.adjust("1 second")
    const third = yield* Add.send(onePayload)
    assert.notStrictEqual(first, second)
    assert.isTrue(third > first && third > second)
    assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })

  each("has messages claimed by priority, then in order", function* (on) {
    const High = Task.make("high", { payload: { n: Schema.Number }, priority: 200 })
    yield* Add.delay({ a: 1, b: 0 })
    yield* Add.delay({ a: 2, b: 0 }, { priority: 255 })
    yield* Add.delay({ a: 3, b: 0 }, { priority: 0 })
    yield* High.delay({ n: 4 })
    yield* Add.delay({ a: 5, b: 0 })
    const messages = yield* claimAll(on)
    assert.deepStrictEqual(
      messages.map(({ payload }) => payload["a"] ?? payload["n"]),
      [2, 4, 1, 5, 3]
    )
  })

  each("makes a delayed task due after its delay", function* (on) {
    yield* Add.delay(onePayload, { delay: "10 seconds" })
    yield* advance("9999 millis")
    assert.deepStrictEqual(yield* claimAll(on), [])
    yield* advance("1 millis")
    assert.lengthOf(yield* claimAll(on), 1)
  })

  each("makes a task due at a given time", function* (on) {
    yield* TestClock.setTime(5000)
    yield* Add.delay(onePayload, { at: DateTime.makeUnsafe(8000) })
    yield* Add.delay(onePayload, { at: new Date(9000) })
    yield* advance("2999 millis")
    assert.deepStrictEqual(yield* claimAll(on), [])
    yield* advance("1 millis")
    assert.lengthOf(yield* claimAll(on), 1)
    yield* advance("1 second")
    assert.lengthOf(yield* claimAll(on), 1)
  })

  each("treats a time in the past as now", function* (on) {
    yield* TestClock.setTime(5000)
    yield* Add.delay(onePayload, { at: DateTime.makeUnsafe(1000) })
    assert.lengthOf(yield* claimAll(on), 1)
  })

  each("sends to the queue that the call names", function* (on) {
    const Mail = Task.make("mail", { queue: "mails" })
    assert.strictEqual(Mail.queue, "mails")
    yield* Mail.delay()
    yield* Mail.delay({ queue: "urgent" })
    assert.lengthOf(yield* claimAll(on, "mails"), 1)
    const [urgent] = yield* claimAll(on, "urgent")
    assert.strictEqual(urgent?.queue, "urgent")
  })

  each("ends a task as Expired when it waits longer than its expiry", function* () {
    const Brief = Task.make("brief", { expires: "1 minute" })
    const byTask = yield* Brief.delay()
    const byCall = yield* Brief.delay({ expires: "10 seconds" })
    yield* advance("10 seconds")
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(byCall)))
    assert(reason._tag === "Expired")
    assert.deepStrictEqual(reason.expiredAt, DateTime.makeUnsafe(10_000))
    assert.strictEqual(yield* AsyncResult.state(byTask), "PENDING")
    yield* advance("50 seconds")
    assert.strictEqual(reasonOf(yield* Effect.flip(AsyncResult.get(byTask)))._tag, "Expired")
  })

  each("fails with EncodeError and enqueues nothing when the payload does not encode", function* (on) {
    const error = yield* Effect.flip(Add.delay({ a: 1, b: "two" as never }))
    assert(error instanceof Task.EncodeError)
    assert.strictEqual(error.taskName, "add")
    assert.isAbove(error.taskId.length, 0)
    assert.match(error.message, /^the payload of add does not encode: .*/s)
    assert.include(error.issue, `["b"]`)
    yield* assertNothingEnqueued(on)
  })

  each(
    "fails with EncodeError when a property of the payload throws, or the payload contains itself",
    function* (on) {
      const Loose = Task.make("loose", { payload: { options: Schema.Record(Schema.String, Schema.Any) } })
      const circular: Record<string, unknown> = {}
      circular["self"] = circular
      const hostile = {
        get a(): string {
          throw new TypeError("no a")
        }
      }
      for (const [options, says] of [
        [circular, "circular"],
        [hostile, "no a"]
      ] as const) {
        const error = yield* Effect.flip(Loose.delay({ options }))
        assert(error instanceof Task.EncodeError)
        assert.include(String(error.cause), says)
        assert.notInclude(error.message, says)
        const partial = yield* Effect.flip(Loose.delayAll([{ options: {} }, { options }]))
        assert.instanceOf(partial.error, Task.EncodeError)
        assert.lengthOf(partial.accepted, 1)
      }
      assert.lengthOf(yield* claimAll(on), 2)
    }
  )

  each("fails with EncodeError when idempotencyKey throws, or returns no key", function* (on) {
    const Buggy = Task.make("buggy", {
      payload: { key: Schema.NullOr(Schema.String) },
      idempotencyKey: ({ key }) => key!.trim()
    })
    for (const key of [null, "", "x".repeat(1001)]) {
      const error = yield* Effect.flip(Buggy.delay({ key }))
      assert(error instanceof Task.EncodeError)
      assert.include(error.message, "the payload of buggy does not encode: no idempotency key: ")
    }
    yield* assertNothingEnqueued(on)
  })

  each("fails with PayloadTooLarge and enqueues nothing when the payload is too large", function* (on) {
    const Text = Task.make("text", { payload: { text: Schema.String } })
    const limit = 4 * 1024 * 1024
    const error = yield* Effect.flip(Text.delay({ text: "é".repeat(limit / 2) }))
    assert(error instanceof Task.PayloadTooLarge)
    assert.strictEqual(error.limit, limit)
    assert.strictEqual(error.bytes, limit + `{"text":""}`.length)
    assert.include(error.message, "store it elsewhere and send its address")
    yield* assertNothingEnqueued(on)
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

  each("accepts fields and instances of a class payload, with the constructor's defaults", function* (on) {
    const Sum = Task.make("sum", { payload: Point, success: Schema.Number })
    yield* work(
      on,
      Sum,
      Sum.toLayer((point) => Effect.succeed(point.sum))
    )
    const plain = yield* Sum.delay({ x: 1 })
    const instance = yield* Sum.delay(new Point({ x: 1, y: 2 }))
    assert.deepStrictEqual(yield* AsyncResult.all([plain, instance]), [8, 3])
  })

  each("accepts a union as payload", function* (on) {
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

  each("accepts no payload for a task without one", function* (on) {
    const Tick = Task.make("tick")
    yield* work(
      on,
      Tick,
      Tick.toLayer(() => Effect.void)
    )
    assert.isUndefined(yield* AsyncResult.get(yield* Tick.delay()))
  })

  each("accepts options as the first argument of a task without a payload", function* (on) {
    const Tick = Task.make("tick", { queue: "ticks" })
    yield* Tick.delay({ id: "a", priority: 7 })
    yield* Tick.send({ id: "b", delay: "30 seconds" })
    const tickedBy = (id: string, priority: number) => ({ id, priority, payload: null })
    const shown = Effect.map(claimAll(on, "ticks"), (messages) =>
      messages.map(({ id, payload, priority }) => ({ id, priority, payload }))
    )
    assert.deepStrictEqual<unknown>(yield* shown, [tickedBy("a", 7)])
    yield* advance("30 seconds")
    assert.deepStrictEqual<unknown>(yield* shown, [tickedBy("b", 100)])
  })

  each("accepts options as the second argument in code over any task", function* (on) {
    const Tick = Task.make("tick")
    const sendTo = <Name extends string, Payload extends Schema.Constraint>(
      task: Task.Task<Name, Payload, Schema.Void, Schema.Never>,
      payload: Payload["~type.make.in"]
    ) => task.send(payload, { queue: "any" })
    const id = yield* sendTo(Tick, undefined)
    assert.deepStrictEqual(
      (yield* claimAll(on, "any")).map((message) => message.id),
      [id]
    )
  })

  describe("with an idempotency key", () => {
    each("returns the same task for the same key", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      const second = yield* Keyed.delay({ order: "o1", amount: 1 })
      const other = yield* Keyed.delay({ order: "o2", amount: 1 })
      assert.strictEqual(first.taskId, second.taskId)
      assert.notStrictEqual(first.taskId, other.taskId)
      assert.lengthOf(yield* claimAll(on), 2)
    })

    each("returns the same task for concurrent calls", function* (on) {
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

    each("returns the same task after it has ended", function* (on) {
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
      assert.deepStrictEqual(yield* claimAll(on), [])
    })

    each("fails with IdempotencyConflict for another payload and enqueues nothing", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      const error = yield* Effect.flip(Keyed.delay({ order: "o1", amount: 2 }))
      assert(error instanceof Task.IdempotencyConflict)
      assert.strictEqual(error.taskId, first.taskId)
      assert.strictEqual(error.key, "o1")
      assert.include(error.message, "another payload")
      assert.lengthOf(yield* claimAll(on), 1)
    })

    each("scopes the key to the task's name", function* (on) {
      const Other = Task.make("other", {
        payload: { order: Schema.String, amount: Schema.Number },
        idempotencyKey: ({ order }) => order
      })
      const first = yield* Keyed.send({ order: "o1", amount: 1 })
      const second = yield* Other.send({ order: "o1", amount: 1 })
      assert.notStrictEqual(first, second)
      assert.lengthOf(yield* claimAll(on), 2)
    })

    each("frees the key after forget", function* (on) {
      const first = yield* Keyed.delay({ order: "o1", amount: 1 })
      yield* AsyncResult.forget(first)
      const second = yield* Keyed.delay({ order: "o1", amount: 2 })
      assert.notStrictEqual(first.taskId, second.taskId)
      assert.lengthOf(yield* claimAll(on), 2)
    })

    each("frees the key when the retention has run out", function* (on) {
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

    each("computes the key from the decoded payload, defaults included", function* () {
      const Defaulted = Task.make("defaulted", { payload: Point, idempotencyKey: ({ sum }) => `${sum}` })
      const first = yield* Defaulted.send({ x: 1 })
      assert.strictEqual(yield* Defaulted.send({ x: 1, y: 7 }), first)
    })
  })

  describe("with an id option", () => {
    each("returns the same task for the same id", function* (on) {
      const first = yield* Add.delay(onePayload, { id: "my id" })
      assert.strictEqual(first.taskId, "my id")
      const second = yield* Add.delay(onePayload, { id: "my id" })
      assert.strictEqual(second.taskId, "my id")
      assert.lengthOf(yield* claimAll(on), 1)
    })

    each("fails with IdempotencyConflict for another payload", function* () {
      yield* Add.delay(onePayload, { id: "my id" })
      const error = yield* Effect.flip(Add.delay({ a: 9, b: 9 }, { id: "my id" }))
      assert(error instanceof Task.IdempotencyConflict)
      assert.strictEqual(error.key, "my id")
    })

    each("fails with IdempotencyConflict for the id of another task", function* (on) {
      const Other = Task.make("other", { payload: { a: Schema.Number, b: Schema.Number } })
      yield* Other.delay(onePayload, { id: "my id" })
      const error = yield* Effect.flip(Add.delay(onePayload, { id: "my id" }))
      assert(error instanceof Task.IdempotencyConflict)
      assert.strictEqual(error.taskId, "my id")
      assert.lengthOf(yield* claimAll(on), 1)
    })

    each("frees the id when its task has ended and was forgotten", function* (on) {
      yield* Add.delay(onePayload, { id: "my id" })
      yield* work(
        on,
        Add,
        Add.toLayer(({ a, b }) => Effect.succeed(a + b))
      )
      assert.strictEqual(yield* AsyncResult.get(Add.result("my id")), 3)
      yield* AsyncResult.forget(Add.result("my id"))
      const again = yield* Add.delay({ a: 2, b: 2 }, { id: "my id" })
      yield* flush
      assert.strictEqual(yield* AsyncResult.get(again), 4)
    })
  })

  describe("delayAll", () => {
    each("enqueues many tasks in few calls", function* (on) {
      const results = yield* Add.delayAll(Array.from({ length: 2500 }, (_, a) => ({ a, b: 0 })))
      assert.strictEqual(new Set(results.map(({ taskId }) => taskId)).size, 2500)
      const [counts] = yield* Broker.counts(["default"])
      assert.strictEqual(counts?.ready, 2500)
      assert.isAtMost(on.count("publish", "create", "enqueue"), 24)
    })

    each("returns handles in the order of the payloads", function* (on) {
      yield* work(
        on,
        Add,
        Add.toLayer(({ a, b }) => Effect.succeed(a + b))
      )
      const results = yield* Add.delayAll([1, 2, 3].map((a) => ({ a, b: 10 })))
      assert.deepStrictEqual(yield* AsyncResult.all(results), [11, 12, 13])
    })

    each("takes the options of each task from a function of its payload and its index", function* (on) {
      const payloads = [1, 2, 3].map((a) => ({ a, b: 0 }))
      const results = yield* Add.delayAll(payloads, ({ a }, index) => ({
        id: `add-${a}`,
        queue: a === 2 ? "even" : "odd",
        priority: index
      }))
      assert.deepStrictEqual(
        results.map(({ taskId }) => taskId),
        ["add-1", "add-2", "add-3"]
      )
      const shown = (queue: string) =>
        Effect.map(claimAll(on, queue), (messages) => messages.map(({ id, priority }) => ({ id, priority })))
      assert.deepStrictEqual(yield* shown("odd"), [
        { id: "add-3", priority: 2 },
        { id: "add-1", priority: 0 }
      ])
      assert.deepStrictEqual(yield* shown("even"), [{ id: "add-2", priority: 1 }])
    })

    each("returns the same tasks when it is repeated with the same ids", function* (on) {
      const enqueue = Add.delayAll([onePayload, { a: 2, b: 2 }], ({ a }) => ({ id: `add-${a}` }))
      const first = yield* enqueue
      const second = yield* enqueue
      assert.deepStrictEqual(second, first)
      assert.lengthOf(yield* claimAll(on), 2)
    })

    each("dies when the function of options throws or returns one out of range", function* (on) {
      const bad: ReadonlyArray<(n: number) => Task.EnqueueOptions> = [
        (n) => ({ priority: n * 1000 }),
        (n) => {
          if (n > 0) throw new RangeError("no options")
          return {}
        }
      ]
      for (const options of bad) {
        const exit = yield* Effect.exit(Add.delayAll([onePayload], ({ a }) => options(a)))
        assert(Exit.isFailure(exit) && Exit.hasDies(exit))
      }
      yield* assertNothingEnqueued(on)
    })

    each("enqueues nothing for no payloads", function* (on) {
      assert.deepStrictEqual(yield* Add.delayAll([]), [])
      yield* assertNothingEnqueued(on)
    })

    each("pulls payloads only as it sends them", function* (on) {
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

    /** Payloads of a generator that records whether it was closed. */
    const closing = (count: number) => {
      const source = {
        closed: 0,
        *payloads() {
          try {
            for (let a = 0; a < count; a++) yield { a, b: a === 600 ? ("none" as never) : 0 }
          } finally {
            source.closed++
          }
        }
      }
      return source
    }

    each("dies when it is run again over an iterator, and enqueues nothing then", function* (on) {
      const source = closing(3)
      const payloads = source.payloads()
      const delayed = Add.delayAll(payloads)
      assert.lengthOf(yield* delayed, 3)
      for (const again of [delayed, Add.delayAll(payloads)]) {
        assert.include(String(yield* Effect.exit(again)), "an earlier run has read")
      }
      assert.lengthOf(yield* claimAll(on), 3)
      const repeatable = Add.delayAll([onePayload])
      assert.lengthOf([...(yield* repeatable), ...(yield* repeatable)], 2)
    })

    each("closes the iterator of its payloads once when it stops early", function* () {
      const source = closing(1000)
      const error = yield* Effect.flip(Add.delayAll(source.payloads()))
      assert.instanceOf(error.error, Task.EncodeError)
      assert.strictEqual(source.closed, 1)
    })

    each("reports its failure although the iterator fails to close", function* () {
      const payloads: IterableIterator<{ a: number; b: number }> = {
        [Symbol.iterator]: () => payloads,
        next: () => ({ done: false, value: { a: 1, b: "none" as never } }),
        return: () => {
          throw new Error("still open")
        }
      }
      const error = yield* Effect.flip(Add.delayAll(payloads))
      assert.instanceOf(error.error, Task.EncodeError)
    })

    each("does not close an iterator that has ended, or that threw", function* () {
      let closed = 0
      const iterator = (next: () => IteratorResult<{ a: number; b: number }>) => ({
        [Symbol.iterator]: () => ({ next, return: () => ({ done: true as const, value: closed++ }) })
      })
      yield* Add.delayAll(iterator(() => ({ done: true, value: undefined })))
      yield* Effect.exit(
        Add.delayAll(
          iterator(() => {
            throw new Error("the source broke")
          })
        )
      )
      assert.strictEqual(closed, 0)
    })

    each("stops at a payload that does not encode and reports the accepted ids", function* (on) {
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
      const messages = yield* claimAll(on)
      assert.deepStrictEqual(
        messages.map(({ id }) => id),
        [...error.accepted]
      )
    })

    each("returns the existing task for a known key", function* (on) {
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

    each("stops at a conflict and reports the accepted ids", function* () {
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

    each("stops at a payload for which idempotencyKey throws, and skips none", function* (on) {
      const Buggy = Task.make("buggy", {
        payload: { n: Schema.Number },
        idempotencyKey: ({ n }) => {
          if (n === 2) throw new TypeError("no key for 2")
          return `${n}`
        }
      })
      const error = yield* Effect.flip(Buggy.delayAll([{ n: 1 }, { n: 2 }, { n: 3 }]))
      assert(error instanceof Task.PartialEnqueue)
      assert.instanceOf(error.error, Task.EncodeError)
      assert.include(String(error.cause), "no key for 2")
      assert.notInclude(error.message, "no key for 2")
      assert.deepStrictEqual(
        (yield* claimAll(on)).map(({ id }) => id),
        [...error.accepted]
      )
    })
  })

  each("batches 1,000 concurrent delays into a few calls", function* (on) {
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
