import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, type Broker, Task } from "chicory"
import { DateTime, Duration, Effect, Exit, Fiber, Option, Schema, type Scope, Stream } from "effect"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, advance, reasonOf, startWorker as work, assertPending } from "./support/memoryFixture.ts"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", {
  article: Schema.String,
  since: Schema.Date
}) {
  get advice() {
    return `order ${this.article} elsewhere`
  }
}
class Refused extends Schema.TaggedError<Refused>()("Refused", { by: Schema.NonEmptyString }) {}

type Services = Scope.Scope | Backend.Backend | Broker.Broker

/** Registers a test on its own fixture; workers stop with the test. */
const test = (
  name: string,
  body: (on: MemoryFixture.MemoryFixture) => Effect.fn.Return<void, unknown, Services>
) =>
  it.effect(name, () =>
    Effect.flatMap(MemoryFixture.make(), (on) =>
      Effect.gen(() => body(on)).pipe(Effect.provideContext(on.context))
    )
  )

describe("results from a worker", () => {
  const Order = Task.make("order", {
    payload: { article: Schema.String },
    success: Schema.Number,
    error: Schema.Union([OutOfStock, Refused])
  })
  const since = new Date("2026-01-02T03:04:05.678Z")
  const OrderLive = Order.toLayer(({ article }) => {
    if (article === "bug") return Effect.die(new TypeError("article is no number"))
    if (article === "refused") return Effect.fail(new Refused({ by: "the shop" }))
    return Effect.fail(new OutOfStock({ article, since }))
  })

  test("an error is an instance of the class that the handler failed with, with fields and methods", function* (on) {
    yield* work(on, Order, OrderLive)
    const result = yield* Order.delay({ article: "tea" })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(result)))
    assert(reason._tag === "Failed")
    assert.isFalse(reason.retriesExhausted)
    assert(reason.error instanceof OutOfStock)
    assert.strictEqual(reason.error.article, "tea")
    assert.deepStrictEqual(reason.error.since, since)
    assert.strictEqual(reason.error.advice, "order tea elsewhere")
  })

  test("the errors of a union are distinguished by tag", function* (on) {
    yield* work(on, Order, OrderLive)
    const caught = yield* Order.delay({ article: "refused" }).pipe(
      Effect.flatMap(AsyncResult.get),
      Effect.catchReason("TaskFailed", "Failed", ({ error }) =>
        Effect.succeed(error._tag === "Refused" ? error.by : error.article)
      )
    )
    assert.strictEqual(caught, "the shop")
  })

  test("a defect keeps its message", function* (on) {
    yield* work(on, Order, OrderLive)
    const error = yield* Effect.flip(AsyncResult.get(yield* Order.delay({ article: "bug" })))
    const reason = reasonOf(error)
    assert(reason._tag === "Died")
    assert(reason.defect instanceof Error)
    assert.strictEqual(reason.defect.message, "article is no number")
    assert.include(String((error as Error).message), "the handler died: ")
  })

  test("a handle without schemas fails with the JSON of the error", function* (on) {
    yield* work(on, Order, OrderLive)
    const { taskId } = yield* Order.delay({ article: "tea" })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(AsyncResult.make(taskId))))
    assert(reason._tag === "Failed")
    assert.deepStrictEqual(reason.error, {
      _tag: "OutOfStock",
      article: "tea",
      since: "2026-01-02T03:04:05.678Z"
    })
  })

  test("a handle is rebuilt from the id alone", function* (on) {
    yield* work(on, Order, OrderLive)
    const id = yield* Order.send({ article: "tea" })
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(Order.result(id))))
    assert(reason._tag === "Failed")
    assert.instanceOf(reason.error, OutOfStock)
    const again = reasonOf(
      yield* Effect.flip(
        AsyncResult.get(AsyncResult.make(id, { success: Schema.Number, error: Order.errorSchema }))
      )
    )
    assert(again._tag === "Failed")
    assert.instanceOf(again.error, OutOfStock)
  })

  const Everything = Task.make("everything", {
    success: Schema.Struct({
      date: Schema.Date,
      at: Schema.DateTimeUtc,
      took: Schema.Duration,
      big: Schema.BigInt,
      map: Schema.ReadonlyMap(Schema.String, Schema.Number),
      set: Schema.ReadonlySet(Schema.BigInt),
      bytes: Schema.Uint8Array,
      option: Schema.Option(Schema.Date),
      none: Schema.UndefinedOr(Schema.String),
      null: Schema.NullOr(Schema.String),
      nan: Schema.Number,
      far: Schema.Number,
      text: Schema.String,
      list: Schema.Array(Schema.Struct({ n: Schema.Number })),
      error: OutOfStock
    })
  })
  const everything: (typeof Everything)["successSchema"]["Type"] = {
    date: since,
    at: DateTime.makeUnsafe("2026-01-02T03:04:05.678Z"),
    took: Duration.nanos(1_500_000_001n),
    big: 2n ** 80n,
    map: new Map([
      ["a", 1],
      ["b", 2]
    ]),
    set: new Set([1n, 2n ** 65n]),
    bytes: Uint8Array.from({ length: 256 }, (_, i) => i),
    option: Option.some(since),
    none: undefined,
    null: null,
    nan: Number.NaN,
    far: Number.NEGATIVE_INFINITY,
    text: "\u0000 '\"\\ \u2028 🌶️ 日本語",
    list: [{ n: -0.1 }, { n: 1e300 }],
    error: new OutOfStock({ article: "tea", since })
  }

  test("values without a JSON form round-trip", function* (on) {
    yield* work(
      on,
      Everything,
      Everything.toLayer(() => Effect.succeed(everything))
    )
    const back = yield* AsyncResult.get(yield* Everything.delay())
    const { error, option, ...rest } = back
    const { error: sentError, option: sentOption, ...sent } = everything
    assert.deepStrictEqual(rest, sent)
    assert.deepStrictEqual(Option.getOrThrow(option), Option.getOrThrow(sentOption))
    assert.instanceOf(error, OutOfStock)
    assert.strictEqual(error.advice, sentError.advice)
  })

  const Nothing = Task.make("nothing")
  test("a task without a result returns undefined, and null without schemas", function* (on) {
    yield* work(
      on,
      Nothing,
      Nothing.toLayer(() => Effect.void)
    )
    const result = yield* Nothing.delay()
    assert.isUndefined(yield* AsyncResult.get(result))
    assert.isNull(yield* AsyncResult.get(AsyncResult.make(result.taskId)))
  })

  const Maybe = Task.make("maybe", { success: Schema.UndefinedOr(Schema.Number) })
  test("undefined is a valid result", function* (on) {
    yield* work(
      on,
      Maybe,
      Maybe.toLayer(() => Effect.succeed(undefined))
    )
    const result = yield* Maybe.delay()
    assert.isUndefined(yield* AsyncResult.get(result))
    assert.deepStrictEqual(yield* AsyncResult.exit(result), Exit.succeed(undefined))
    assert.isNull(yield* AsyncResult.get(AsyncResult.make(result.taskId)))
  })

  const Import = Task.make("import", {
    payload: { rows: Schema.Number },
    success: Schema.Number,
    progress: Schema.Struct({ done: Schema.Number, at: Schema.Date })
  })
  test("progress is decoded", function* (on) {
    yield* work(
      on,
      Import,
      Import.toLayer(({ rows }) =>
        Effect.gen(function* () {
          for (let done = 1; done <= rows; done++) {
            yield* Import.progress({ done, at: since })
            yield* Effect.sleep("1 second")
          }
          return rows
        })
      )
    )
    const result = yield* Import.delay({ rows: 3 })
    const seen = yield* AsyncResult.changes(result).pipe(Stream.runCollect, fork)
    for (let second = 0; second < 3; second++) yield* advance("1 second")
    const progress = (yield* Fiber.join(seen)).flatMap(({ progress }) => Option.toArray(progress))
    assert.deepStrictEqual([...new Set(progress.map(({ done }) => done))], [1, 2, 3])
    for (const { at } of progress) assert.deepStrictEqual(at, since)
  })
})

describe("get inside a handler", () => {
  const Count = Task.make("count", { payload: { n: Schema.Number }, success: Schema.Number })

  test("frees its slot, so a task that awaits another one on its queue does not block it", function* (on) {
    const CountLive = Count.toLayer(({ n }) =>
      n === 0
        ? Effect.succeed(0)
        : Effect.map(
            Effect.flatMap(Effect.orDie(Count.delay({ n: n - 1 })), AsyncResult.get),
            (below) => below + 1
          ).pipe(Effect.orDie, Effect.provideContext(on.context))
    )
    yield* work(on, Count, CountLive, { concurrency: 1 })
    const waiting = yield* fork(AsyncResult.get(yield* Count.delay({ n: 5 }), { timeout: "1 minute" }))
    yield* advance("1 minute")
    assert.strictEqual(yield* Fiber.join(waiting), 5)
  })

  test("takes a slot again before it continues, so no more handlers run than there are slots", function* (on) {
    let running = 0
    let most = 0
    const busy = Effect.acquireUseRelease(
      Effect.sync(() => {
        most = Math.max(most, ++running)
      }),
      () => Effect.sleep("1 second"),
      () => Effect.sync(() => void running--)
    )
    const CountLive = Count.toLayer(({ n }) =>
      Effect.gen(function* () {
        yield* busy
        if (n === 0) return 0
        const below = yield* Effect.flatMap(Count.delay({ n: n - 1 }), AsyncResult.get)
        yield* busy
        return below + 1
      }).pipe(Effect.orDie, Effect.provideContext(on.context))
    )
    yield* work(on, Count, CountLive, { concurrency: 2 })
    const waiting = yield* fork(
      AsyncResult.all(yield* Count.delayAll([{ n: 3 }, { n: 3 }, { n: 3 }, { n: 0 }, { n: 0 }]))
    )
    yield* advance("1 minute")
    assert.deepStrictEqual(yield* Fiber.join(waiting), [3, 3, 3, 0, 0])
    assert.strictEqual(most, 2)
  })

  test("frees the one slot of the handler when it waits several times at once", function* (on) {
    let running = 0
    let most = 0
    const CountLive = Count.toLayer(({ n }) => {
      if (n === 0) {
        return Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++running)
          }),
          () => Effect.as(Effect.sleep("1 second"), 0),
          () => Effect.sync(() => void running--)
        )
      }
      return Effect.gen(function* () {
        const below = yield* Count.delayAll(Array.from({ length: n }, () => ({ n: 0 })))
        yield* Effect.forEach(below, (one) => AsyncResult.get(one), { concurrency: "unbounded" })
        return n
      }).pipe(Effect.orDie, Effect.provideContext(on.context))
    })
    yield* work(on, Count, CountLive, { concurrency: 1 })
    const waiting = yield* fork(AsyncResult.get(yield* Count.delay({ n: 8 })))
    yield* advance("1 minute")
    assert.strictEqual(yield* Fiber.join(waiting), 8)
    assert.strictEqual(most, 1)
  })

  test("is interrupted with its task without losing the slot", function* (on) {
    const CountLive = Count.toLayer(({ n }) =>
      n === 0
        ? Effect.succeed(0)
        : AsyncResult.get(Count.result("nobody")).pipe(Effect.orDie, Effect.provideContext(on.context))
    )
    yield* work(on, Count, CountLive, { concurrency: 1 })
    const first = yield* Count.delay({ n: 1 })
    const waiting = yield* fork(Effect.flip(AsyncResult.get(first)))
    yield* advance("1 second")
    assertPending(waiting)
    assert.strictEqual(yield* AsyncResult.cancel(first), "Requested")
    yield* advance("1 second")
    assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Cancelled")
    const after = yield* fork(AsyncResult.all(yield* Count.delayAll([{ n: 0 }, { n: 0 }])))
    yield* advance("1 second")
    assert.deepStrictEqual(yield* Fiber.join(after), [0, 0])
  })
})
