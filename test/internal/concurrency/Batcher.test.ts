import { assert, describe, it } from "@effect/vitest"
import { Context, type Duration, Effect, Exit, Fiber, Option, Scope } from "effect"
import * as Batcher from "../../../src/internal/concurrency/Batcher.ts"
import { fork, exitOf, advance, assertPending, flush } from "../../support/memoryFixture.ts"

interface Options extends Partial<Batcher.Options<number, string, string>> {
  readonly millis?: number
}

/** A batcher that answers every item by a text, and the batches that it sent. */
const make = Effect.fnUntraced(function* (options: Options = {}) {
  const batches: Array<ReadonlyArray<number>> = []
  const batcher = yield* Batcher.make<number, string, string>({
    run: (batch) =>
      Effect.suspend(() => {
        batches.push(batch)
        const answers = Effect.succeed(batch.map((n) => `answer ${n}`))
        return options.millis === undefined ? answers : Effect.delay(answers, options.millis)
      }),
    isPermanent: (error) => error === "permanent",
    toClosedError: () => "closed",
    maxBatch: 10,
    maxSize: 100,
    concurrency: 2,
    ...options
  })
  return { batches, batcher }
})

/** A batcher of an unavailable store, whose calls fail after that time. */
const away = Effect.fnUntraced(function* (time: Duration.Input) {
  const batches: Array<ReadonlyArray<number>> = []
  const { batcher } = yield* make({
    maxBatch: 2,
    run: (batch) =>
      Effect.suspend(() => {
        batches.push(batch)
        return Effect.delay(Effect.fail("away"), time)
      })
  })
  return { batches, batcher }
})

const many = (count: number) => Array.from({ length: count }, (_, n) => n)
const askAll = (batcher: Batcher.Batcher<number, string, string>, count: number) =>
  Effect.forEach(many(count), (n) => batcher.one(n), { concurrency: "unbounded" })

describe("batching", () => {
  it.effect("requests of one turn go out in one call", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      const answers = yield* askAll(batcher, 8)
      assert.deepStrictEqual(
        answers,
        many(8).map((n) => `answer ${n}`)
      )
      assert.deepStrictEqual(batches, [many(8)])
    })
  )

  it.effect("a caller that has been alone does not wait for the end of the turn", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      const isSentWithinTurn = (n: number) =>
        Effect.gen(function* () {
          yield* Effect.forkChild(batcher.one(n), { startImmediately: true })
          yield* Effect.promise(() => Promise.resolve())
          return batches.some((batch) => batch.includes(n))
        })
      assert.isFalse(yield* isSentWithinTurn(1))
      yield* flush
      assert.isTrue(yield* isSentWithinTurn(2))
      yield* askAll(batcher, 3)
      assert.isFalse(yield* isSentWithinTurn(4))
    })
  )

  it.effect("a caller that is alone lets the rest of the process run now and then", () =>
    Effect.gen(function* () {
      const { batcher } = yield* make()
      let turns = 0
      const countTurn = (): void => {
        turns++
        turn = setImmediate(countTurn)
      }
      let turn = setImmediate(countTurn)
      for (let n = 0; n < 640; n++) yield* batcher.one(n)
      clearImmediate(turn)
      assert.isAtLeast(turns, 5)
    })
  )

  it.effect("a call carries at most maxBatch items", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      yield* askAll(batcher, 25)
      assert.deepStrictEqual(
        batches.map(({ length }) => length),
        [10, 10, 5]
      )
    })
  )

  it.effect("a call carries at most maxSize characters, and a larger item goes alone", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make({ sizeOf: (n) => (n === 3 ? 1000 : 30) })
      const answers = yield* askAll(batcher, 8)
      assert.deepStrictEqual(
        answers,
        many(8).map((n) => `answer ${n}`)
      )
      assert.deepStrictEqual(batches, [[0, 1, 2], [3], [4, 5, 6], [7]])
    })
  )

  it.effect("a single item is sent whatever its size", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make({ sizeOf: () => Infinity })
      yield* askAll(batcher, 2)
      assert.deepStrictEqual(batches, [[0], [1]])
    })
  )

  it.effect("requests that waited behind a failed call fail with it, and later requests are sent", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* away("5 seconds")
      const first = yield* fork(batcher.many(many(9)))
      yield* advance("4 seconds")
      const late = yield* fork(batcher.one(100))
      yield* advance("1 second")
      const failed = yield* exitOf(first)
      assert.deepStrictEqual(
        failed,
        many(9).map(() => Exit.fail("away"))
      )
      assert.deepStrictEqual(batches, [[0, 1], [2, 3], [100]])
      assertPending(late)
      yield* advance("5 seconds")
      assert.deepStrictEqual(exitOf(late), Exit.fail("away"))
    })
  )

  it.effect("a call that fails at once fails no later request", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* away("10 millis")
      yield* fork(batcher.many(many(6)))
      yield* advance("1 second")
      assert.deepStrictEqual(batches, [
        [0, 1],
        [2, 3],
        [4, 5]
      ])
    })
  )

  it.effect("what a call leaves unanswered is sent again, before other requests", () =>
    Effect.gen(function* () {
      const batches: Array<ReadonlyArray<number>> = []
      const { batcher } = yield* make({
        concurrency: 1,
        run: (batch) =>
          Effect.suspend(() => {
            batches.push(batch)
            return Effect.delay(Effect.succeed(batch.slice(0, 2).map((n) => `answer ${n}`)), 100)
          })
      })
      const first = yield* fork(batcher.many(many(5)))
      yield* flush
      const late = yield* fork(batcher.one(9))
      yield* advance(300)
      assert.deepStrictEqual(batches, [many(5), [2, 3, 4, 9], [4, 9]])
      assert.deepStrictEqual(exitOf(first), Exit.succeed(many(5).map((n) => Exit.succeed(`answer ${n}`))))
      assert.deepStrictEqual(exitOf(late), Exit.succeed("answer 9"))
    })
  )

  it.effect("after a slow call that failed batches are halved, and grow with each call that succeeds", () =>
    Effect.gen(function* () {
      let fails = true
      const batches: Array<number> = []
      const { batcher } = yield* make({
        concurrency: 1,
        run: (batch) =>
          Effect.suspend(() => {
            batches.push(batch.length)
            const answers = fails ? Effect.fail("timed out") : Effect.succeed(batch.map((n) => `answer ${n}`))
            return Effect.delay(answers, "5 seconds")
          })
      })
      for (let i = 0; i < 2; i++) {
        yield* fork(batcher.many(many(10)))
        yield* advance("5 seconds")
      }
      fails = false
      yield* fork(batcher.many(many(20)))
      yield* advance("1 minute")
      assert.deepStrictEqual(batches, [10, 5, 2, 4, 8, 6])
    })
  )

  it.effect("requests during a call form the next batch", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make({ millis: 100 })
      yield* fork(batcher.one(1))
      yield* fork(batcher.one(2))
      const waiting = yield* fork(askAll(batcher, 8))
      assert.deepStrictEqual(batches, [[1], [2]])
      assertPending(waiting)
      yield* advance(100)
      assert.deepStrictEqual(batches, [[1], [2], many(8)])
      yield* advance(100)
      assert.isTrue(Exit.isSuccess(exitOf(waiting)))
    })
  )

  it.effect("at most concurrency calls are in flight", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make({ millis: 100 })
      const waiting = yield* fork(askAll(batcher, 45))
      assert.lengthOf(batches, 2)
      yield* advance(100)
      assert.lengthOf(batches, 4)
      yield* advance(100)
      assert.lengthOf(batches, 5)
      yield* advance(100)
      assert.lengthOf(yield* Fiber.join(waiting), 45)
    })
  )

  /** The sizes of the batches after the first, which shows whether the store answers at once. */
  const sizes = (
    options: Options,
    ask: (on: Batcher.Batcher<number, string, string>) => Effect.Effect<unknown, string>
  ) =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make({ splitWhenIdle: true, maxBatch: 100, ...options })
      yield* fork(batcher.one(0))
      yield* advance(100)
      const waiting = yield* fork(ask(batcher))
      yield* advance(100)
      assert.isTrue(Exit.isSuccess(exitOf(waiting)))
      return batches.slice(1).map(({ length }) => length)
    })

  it.effect("splitWhenIdle splits a large batch in two for a store that answers later", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* sizes({ millis: 100 }, (on) => askAll(on, 64)), [32, 32])
      assert.deepStrictEqual(yield* sizes({ millis: 100 }, (on) => askAll(on, 31)), [31])
      assert.deepStrictEqual(
        yield* sizes({ millis: 100, splitWhenIdle: false }, (on) => askAll(on, 64)),
        [64]
      )
    })
  )

  it.effect("splitWhenIdle sends the requests of one turn, or to a store that answers at once, whole", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* sizes({ millis: 100 }, (on) => on.many(many(64))), [64])
      assert.deepStrictEqual(yield* sizes({ millis: 100 }, (on) => askAll(on, 140)), [100, 40])
      assert.deepStrictEqual(yield* sizes({}, (on) => askAll(on, 64)), [64])
    })
  )

  it.effect("many items are answered in order", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      const answers = yield* batcher.many(many(25))
      assert.deepStrictEqual(
        answers,
        many(25).map((n) => Exit.succeed(`answer ${n}`))
      )
      assert.lengthOf(batches, 3)
    })
  )

  it.effect("an empty list makes no call", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      assert.deepStrictEqual(yield* batcher.many([]), [])
      assert.deepStrictEqual(batches, [])
    })
  )

  it.effect("consecutive requests are each answered", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      for (const n of many(100)) assert.strictEqual(yield* batcher.one(n), `answer ${n}`)
      assert.lengthOf(batches, 100)
    })
  )
})

describe("interruption", () => {
  it.effect("withdraws a request that is not in flight", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make({ millis: 100, concurrency: 1 })
      yield* fork(batcher.one(1))
      const second = yield* fork(batcher.one(2))
      const third = yield* fork(batcher.one(3))
      yield* Fiber.interrupt(second)
      yield* advance(200)
      assert.deepStrictEqual(batches, [[1], [3]])
      assert.deepStrictEqual(exitOf(third), Exit.succeed("answer 3"))
    })
  )

  it.effect("of one caller leaves the other requests of its batch alone", () =>
    Effect.gen(function* () {
      const { batcher } = yield* make({ millis: 100 })
      const first = yield* Effect.forkChild(batcher.one(1))
      const second = yield* fork(batcher.one(2))
      yield* Fiber.interrupt(first)
      yield* advance(100)
      assert.deepStrictEqual(exitOf(second), Exit.succeed("answer 2"))
    })
  )

  it.effect(
    "of the scope fails every waiting caller and every later one, and awaits the calls on their way",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { batcher } = yield* Scope.provide(make({ millis: 100, concurrency: 1 }), scope)
        const onItsWay = yield* fork(batcher.one(1))
        const waiting = yield* fork(Effect.exit(batcher.many(many(35))))
        const closing = yield* fork(Scope.close(scope, Exit.void))
        yield* advance(100)
        assert.isTrue(Exit.isSuccess(exitOf(closing)))
        assert.deepStrictEqual(exitOf(onItsWay), Exit.succeed("answer 1"))
        const exits = Option.getOrThrow(Exit.getSuccess(Option.getOrThrow(Exit.getSuccess(exitOf(waiting)))))
        for (const exit of exits) assert.deepStrictEqual(exit, Exit.fail("closed"))
        assert.deepStrictEqual(yield* Effect.exit(batcher.one(9)), Exit.fail("closed"))
      })
  )
})

describe("failures", () => {
  it.effect("a retryable error fails the whole batch, which is not sent again", () =>
    Effect.gen(function* () {
      let calls = 0
      const { batcher } = yield* make({
        run: () => Effect.suspend(() => (calls++, Effect.fail("cut off")))
      })
      const answers = yield* batcher.many(many(5))
      assert.deepStrictEqual(
        answers,
        many(5).map(() => Exit.fail("cut off"))
      )
      assert.strictEqual(calls, 1)
    })
  )

  it.effect("a permanent error of one item fails that item alone", () =>
    Effect.gen(function* () {
      let calls = 0
      const { batcher } = yield* make({
        run: (batch) =>
          Effect.suspend(() => {
            calls++
            return batch.includes(6)
              ? Effect.fail("permanent")
              : Effect.succeed(batch.map((n) => `answer ${n}`))
          })
      })
      const answers = yield* batcher.many(many(10))
      assert.deepStrictEqual(
        answers,
        many(10).map((n) => (n === 6 ? Exit.fail("permanent") : Exit.succeed(`answer ${n}`)))
      )
      assert.isAtMost(calls, 9)
    })
  )

  it.effect("a call that dies fails its batch, and the batcher continues", () =>
    Effect.gen(function* () {
      let calls = 0
      const { batcher } = yield* make({
        concurrency: 1,
        run: (batch) =>
          calls++ === 0 ? Effect.die("a bug") : Effect.succeed(batch.map((n) => `answer ${n}`))
      })
      assert.isTrue(Exit.hasDies(yield* Effect.exit(batcher.one(1))))
      assert.strictEqual(yield* batcher.one(2), "answer 2")
    })
  )

  it.effect("a driver that throws fails its batch, and the batcher continues", () =>
    Effect.gen(function* () {
      let calls = 0
      const { batcher } = yield* make({
        concurrency: 1,
        run: (batch) => {
          if (calls++ === 0) throw new Error("a bug")
          return Effect.succeed(batch.map((n) => `answer ${n}`))
        }
      })
      assert.isTrue(Exit.hasDies(yield* Effect.exit(batcher.one(1))))
      assert.strictEqual(yield* batcher.one(2), "answer 2")
    })
  )
})

describe("batchKey", () => {
  class Transaction extends Context.Service<Transaction, string>()("test/Transaction") {}
  const makeKeyed = Effect.fnUntraced(function* (maxAnswers = Infinity) {
    const seen: Array<readonly [transaction: string | undefined, batch: ReadonlyArray<number>]> = []
    const { batcher } = yield* make({
      key: (context) => Option.getOrUndefined(Context.getOption(context, Transaction)),
      run: (batch) =>
        Effect.contextWith((context: Context.Context<never>) => {
          seen.push([Option.getOrUndefined(Context.getOption(context, Transaction)), batch])
          return Effect.succeed(batch.slice(0, maxAnswers).map((n) => `answer ${n}`))
        })
    })
    return { batcher, seen }
  })

  it.effect("separates requests, and each call runs in its caller's context", () =>
    Effect.gen(function* () {
      const { batcher, seen } = yield* makeKeyed()
      yield* Effect.all(
        [
          batcher.one(1),
          Effect.provideService(batcher.one(2), Transaction, "t1"),
          batcher.one(3),
          Effect.provideService(batcher.many([4, 5]), Transaction, "t2")
        ],
        { concurrency: "unbounded" }
      )
      assert.sameDeepMembers(seen, [
        ["t1", [2]],
        ["t2", [4, 5]],
        [undefined, [1, 3]]
      ])
    })
  )

  it.effect("batches many items of one transaction by maxBatch", () =>
    Effect.gen(function* () {
      const { batcher, seen } = yield* makeKeyed()
      const answers = yield* Effect.provideService(batcher.many(many(25)), Transaction, "t1")
      assert.lengthOf(answers, 25)
      assert.deepStrictEqual(
        seen.map(([transaction, { length }]) => [transaction, length]),
        [
          ["t1", 10],
          ["t1", 10],
          ["t1", 5]
        ]
      )
      yield* flush
    })
  )

  it.effect("sends again in a transaction what a call leaves unanswered", () =>
    Effect.gen(function* () {
      const { batcher, seen } = yield* makeKeyed(3)
      const answers = yield* Effect.provideService(batcher.many(many(8)), Transaction, "t1")
      assert.deepStrictEqual(
        answers,
        many(8).map((n) => Exit.succeed(`answer ${n}`))
      )
      assert.deepStrictEqual(
        seen.map(([, batch]) => batch),
        [many(8), [3, 4, 5, 6, 7], [6, 7]]
      )
    })
  )

  it.effect("makes no call for an empty list in a transaction", () =>
    Effect.gen(function* () {
      const { batcher, seen } = yield* makeKeyed()
      assert.deepStrictEqual(yield* Effect.provideService(batcher.many([]), Transaction, "t1"), [])
      assert.deepStrictEqual(seen, [])
    })
  )
})

describe("requests without a waiting fiber", () => {
  it.effect("are sent with the others, and their callback receives the answer", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      const answers: Array<Exit.Exit<string, string>> = []
      batcher.request(1)((answer) => answers.push(answer))
      assert.strictEqual(yield* batcher.one(2), "answer 2")
      assert.deepStrictEqual(answers, [Exit.succeed("answer 1")])
      assert.deepStrictEqual(batches, [[1, 2]])
    })
  )

  it.effect("pass a failure to their callback", () =>
    Effect.gen(function* () {
      const { batcher } = yield* make({ run: () => Effect.fail("away") })
      assert.deepStrictEqual(yield* Effect.exit(Batcher.toEffect(batcher.request(1))), Exit.fail("away"))
    })
  )

  it.effect("are not sent, nor called back, when they are withdrawn before the call", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      const answers: Array<unknown> = []
      batcher
        .request(1)((answer) => answers.push(answer))
        .cancel()
      assert.strictEqual(yield* batcher.one(2), "answer 2")
      assert.deepStrictEqual(batches, [[2]])
      assert.deepStrictEqual(answers, [])
    })
  )

  it.effect("can be chained one after the other", () =>
    Effect.gen(function* () {
      const { batcher, batches } = yield* make()
      const both = Batcher.andThen(batcher.request(1), batcher.request(2))
      assert.strictEqual(yield* Batcher.toEffect(both), "answer 2")
      assert.deepStrictEqual(batches, [[1], [2]])
    })
  )

  it.effect("stop after a failure or when the answer is no longer wanted", () =>
    Effect.gen(function* () {
      const failing = yield* make({ run: () => Effect.fail("away") })
      const { batcher, batches } = yield* make({ millis: 100 })
      assert.deepStrictEqual(
        yield* Effect.exit(Batcher.toEffect(Batcher.andThen(failing.batcher.request(1), batcher.request(1)))),
        Exit.fail("away")
      )
      const waiting = yield* fork(Batcher.toEffect(Batcher.andThen(batcher.request(2), batcher.request(3))))
      yield* Fiber.interrupt(waiting)
      yield* advance("1 second")
      assert.deepStrictEqual(batches, [[2]])
    })
  )

  it.effect("are answered at once by a batcher whose scope has closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { batcher } = yield* Scope.provide(make(), scope)
      yield* Scope.close(scope, Exit.void)
      const answers: Array<Exit.Exit<string, string>> = []
      batcher.request(1)((answer) => answers.push(answer))
      assert.isTrue(answers.length === 1 && Exit.isFailure(answers[0]!))
    })
  )
})
