import { assert, describe } from "@effect/vitest"
import { AsyncResult, Broker, DeadLetters, Task, TaskFailed, Worker } from "chicory"
import {
  Cause,
  DateTime,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Result,
  Schema,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import type * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, advance, reasonOf, assertPending, flush } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { on: Schema.Date }) {}
const on2026 = new Date("2026-01-02T00:00:00.000Z")

const Charge = Task.make("charge", {
  payload: { amount: Schema.BigInt },
  success: Schema.String,
  error: Refused,
  retention: "1 minute"
})
const Other = Task.make("other", { success: Schema.Void })

/** Starts a worker whose charges fail while `broken` returns true. */
const work = (on: MemoryFixture.MemoryFixture, broken: () => boolean = () => true) =>
  Effect.tap(
    Layer.build(
      Worker.layer([Charge, Other], { drainTimeout: 0 }).pipe(
        Layer.provide([
          Charge.toLayer(({ amount }) =>
            broken() ? Effect.fail(new Refused({ on: on2026 })) : Effect.succeed(`charged ${amount}`)
          ),
          Other.toLayer(() => Effect.die(new Error("a bug")))
        ]),
        Layer.provide(on.layer)
      )
    ),
    flush
  )

/** Enqueues a charge and waits until it fails. */
const fail = (amount: bigint) =>
  Effect.gen(function* () {
    const result = yield* Charge.delay({ amount })
    yield* flush
    assert.isTrue(yield* AsyncResult.failed(result))
    return result
  })

/** Has a task fail whose later runs succeed; returns its result, the id of its letter, and how often it ran. */
const failOnce = (on: MemoryFixture.MemoryFixture) =>
  Effect.gen(function* () {
    let runs = 0
    yield* work(on, () => ++runs === 1)
    const result = yield* fail(7n)
    const [entry] = yield* DeadLetters.list(Charge)
    return { result, id: entry!.id, runs: () => runs }
  })

describe("stream", () => {
  test("has all letters once, newest first, while they are replayed and fail again", function* (on) {
    yield* work(on)
    for (let n = 1n; n <= 7n; n++) yield* fail(n)
    const amounts = yield* DeadLetters.stream(Charge, { limit: 3 }).pipe(
      Stream.tap(({ id }) => Effect.andThen(DeadLetters.replay(id), flush)),
      Stream.map(({ payload }) => Result.getOrThrow(payload).amount),
      Stream.runCollect
    )
    assert.deepStrictEqual(amounts, [7n, 6n, 5n, 4n, 3n, 2n, 1n])
    assert.strictEqual(yield* DeadLetters.count(), 7)
  })

  test("begins after a cursor, without a task too", function* (on) {
    yield* work(on)
    for (let n = 1n; n <= 3n; n++) yield* fail(n)
    const [newest] = yield* DeadLetters.list()
    const rest = yield* Stream.runCollect(DeadLetters.stream({ after: newest!.cursor }))
    assert.deepStrictEqual(rest, yield* DeadLetters.list({ after: newest!.cursor }))
    assert.lengthOf(rest, 2)
  })
})

describe("list", () => {
  test("decodes payload, reason and error with the task given", function* (on) {
    yield* TestClock.setTime(5000)
    yield* work(on)
    const result = yield* fail(2n ** 70n)
    const [entry, ...more] = yield* DeadLetters.list(Charge)
    assert.deepStrictEqual(more, [])
    const amount: bigint = Result.getOrThrow(entry!.payload).amount
    assert.strictEqual(amount, 2n ** 70n)
    assert(entry!.reason._tag === "Failed")
    const error: Refused = entry!.reason.error
    assert.instanceOf(error, Refused)
    assert.deepStrictEqual(error.on, on2026)
    assert.deepStrictEqual(entry!.taskId, Option.some(result.taskId))
    assert.deepStrictEqual(entry!.taskName, Option.some("charge"))
    assert.strictEqual(entry!.queue, "default")
    assert.strictEqual(entry!.attempts, 1)
    assert.deepStrictEqual(entry!.at, DateTime.makeUnsafe(5000))
    assert.include(String(entry!.raw), result.taskId)
  })

  test("returns JSON for all tasks", function* (on) {
    yield* work(on)
    yield* fail(7n)
    yield* Other.delay()
    yield* flush
    const entries = yield* DeadLetters.list()
    assert.deepStrictEqual(
      entries.map(({ taskName }) => Option.getOrNull(taskName)),
      ["other", "charge"]
    )
    const [other, charge] = entries
    assert.strictEqual(other?.reason._tag, "Died")
    assert.deepStrictEqual(Result.getOrThrow(charge!.payload), { amount: "7" })
    assert(charge?.reason._tag === "Failed")
    assert.deepStrictEqual(charge.reason.error, { _tag: "Refused", on: "2026-01-02T00:00:00.000Z" })
  })

  test("leaves out the letters of other tasks", function* (on) {
    yield* work(on)
    yield* fail(7n)
    yield* Other.delay()
    yield* flush
    assert.lengthOf(yield* DeadLetters.list(Charge), 1)
    assert.lengthOf(yield* DeadLetters.list(Other), 1)
    assert.strictEqual(yield* DeadLetters.count(Charge), 1)
    assert.strictEqual(yield* DeadLetters.count(), 2)
  })

  test("pages through the letters, newest first", function* (on) {
    yield* work(on)
    for (let n = 1n; n <= 5n; n++) yield* fail(n)
    const amounts = (entries: ReadonlyArray<DeadLetters.Entry<{ readonly amount: bigint }, Refused>>) =>
      entries.map(({ payload }) => Result.getOrThrow(payload).amount)
    const first = yield* DeadLetters.list(Charge, { limit: 2 })
    assert.deepStrictEqual(amounts(first), [5n, 4n])
    const second = yield* DeadLetters.list(Charge, { limit: 2, after: first[1]!.cursor })
    assert.deepStrictEqual(amounts(second), [3n, 2n])
    const third = yield* DeadLetters.list(Charge, { limit: 2, after: second[1]!.cursor })
    assert.deepStrictEqual(amounts(third), [1n])
    assert.deepStrictEqual(yield* DeadLetters.list(Charge, { after: third[0]!.cursor }), [])
    assert.lengthOf(yield* DeadLetters.list({ limit: 3 }), 3)
  })

  test("has each letter once, page by page, while they are replayed and fail again", function* (on) {
    yield* work(on)
    for (let n = 1n; n <= 7n; n++) yield* fail(n)
    const replayed: Array<bigint> = []
    for (let after: DeadLetters.Cursor | undefined; ;) {
      const page = yield* DeadLetters.list(Charge, { limit: 3, after })
      if (page.length === 0) break
      for (const { id, payload } of page) {
        replayed.push(Result.getOrThrow(payload).amount)
        assert.isTrue(yield* DeadLetters.replay(id))
      }
      after = page.at(-1)?.cursor
      yield* flush
    }
    assert.deepStrictEqual(replayed, [7n, 6n, 5n, 4n, 3n, 2n, 1n])
    assert.strictEqual(yield* DeadLetters.count(), 7)
  })

  test("takes a cursor that was decoded from text, and no other text", function* (on) {
    yield* work(on)
    yield* fail(1n)
    yield* fail(2n)
    const [newest, oldest] = yield* DeadLetters.list()
    assert.match(newest!.cursor, /^[\w-]+$/)
    const cursor = yield* Schema.decodeUnknownEffect(DeadLetters.Cursor)(`${newest!.cursor}`)
    assert.deepStrictEqual(yield* DeadLetters.list({ after: cursor }), [oldest!])
    for (const text of ["", "0190:0", newest!.id, btoa("[1]"), btoa("[-1,2]"), btoa(`["a",2]`)]) {
      const error = yield* Effect.flip(Schema.decodeUnknownEffect(DeadLetters.Cursor)(text))
      assert.include(error.message, "the cursor of a dead letter")
      const exit = yield* Effect.exit(DeadLetters.list({ after: text as DeadLetters.Cursor }))
      assert(Exit.isFailure(exit))
      assert.include(
        (Cause.squash(exit.cause) as Error).message,
        "DeadLetters.list: after must be the cursor of an entry"
      )
    }
  })

  test("returns 100 letters a page by default", function* (on) {
    yield* work(on)
    yield* Charge.delayAll(Array.from({ length: 120 }, (_, n) => ({ amount: BigInt(n) })))
    yield* advance("1 second")
    assert.lengthOf(yield* DeadLetters.list(), 100)
    assert.strictEqual(yield* DeadLetters.count(), 120)
  })

  test("rejects a limit out of range as a defect", function* () {
    for (const limit of [0, -1, 1.5, 10_001]) {
      const exit = yield* Effect.exit(DeadLetters.list({ limit }))
      assert(Exit.isFailure(exit))
      assert.include(
        (Cause.squash(exit.cause) as Error).message,
        "DeadLetters.list: limit must be a whole number from 1 to 10000"
      )
    }
  })

  test("reports why a payload does not decode and keeps its bytes", function* (on) {
    const Before = Task.make("charge", { payload: { amount: Schema.String } })
    yield* work(on)
    const result = yield* Before.delay({ amount: "a lot" })
    yield* flush
    const [entry] = yield* DeadLetters.list(Charge)
    assert.strictEqual(entry?.reason._tag, "PayloadInvalid")
    assert.isTrue(Result.isFailure(entry!.payload))
    assert.include(String(entry?.raw), "a lot")
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(result)))
    assert.strictEqual(reason._tag, "PayloadInvalid")
  })

  test("reports an error that does not decode as ResultInvalid on the reader's side", function* (on) {
    const Today = Task.make("charge", { payload: { amount: Schema.BigInt }, error: Schema.Number })
    yield* work(on)
    yield* fail(7n)
    const [entry] = yield* DeadLetters.list(Today)
    assert(entry?.reason._tag === "ResultInvalid")
    assert.strictEqual(entry.reason.side, "reader")
  })
})

describe("remove and purge", () => {
  test("remove deletes one letter and answers whether it existed", function* (on) {
    yield* work(on)
    yield* fail(1n)
    yield* fail(2n)
    const [entry] = yield* DeadLetters.list(Charge)
    assert.isTrue(yield* DeadLetters.remove(entry!.id))
    assert.isFalse(yield* DeadLetters.remove(entry!.id))
    assert.strictEqual(yield* DeadLetters.count(), 1)
  })

  test("remove keeps the failure of the letter's task", function* (on) {
    yield* work(on)
    const result = yield* fail(1n)
    yield* DeadLetters.purge()
    assert.isTrue(yield* AsyncResult.failed(result))
  })

  test("purge deletes the letters of one task, or all", function* (on) {
    yield* work(on)
    yield* Charge.delayAll(Array.from({ length: 250 }, (_, n) => ({ amount: BigInt(n) })))
    yield* Other.delayAll([undefined, undefined])
    yield* advance("1 second")
    assert.strictEqual(yield* DeadLetters.purge(Charge), 250)
    assert.strictEqual(yield* DeadLetters.count(), 2)
    assert.strictEqual(yield* DeadLetters.purge(), 2)
    assert.strictEqual(yield* DeadLetters.purge(), 0)
  })

  test(
    "purge ends while letters are written, which stay",
    function* (on) {
      yield* work(on)
      for (let n = 1n; n <= 3n; n++) yield* fail(n)
      assert.strictEqual(yield* DeadLetters.purge(), 3)
      assert.strictEqual(yield* DeadLetters.count(), 1)
    },
    {
      backend: (driver) => ({
        removeDeadLetters: (ids) =>
          Effect.andThen(
            driver.parkMessage([
              {
                deadLetterId: `written before ${ids[0]} is removed`,
                queue: "default",
                reason: "PayloadInvalid",
                exit: "{}",
                body: "no message",
                retentionMillis: undefined
              }
            ]),
            driver.removeDeadLetters(ids)
          )
      })
    }
  )
})

describe("guarantee 2: replay", () => {
  test("sends the task again: its handle waits again and its counters start from zero", function* (on) {
    let broken = true
    yield* work(on, () => broken)
    const result = yield* fail(7n)
    const [entry] = yield* DeadLetters.list(Charge)
    broken = false
    assert.isTrue(yield* DeadLetters.replay(entry!.id))
    assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
    const after = Option.getOrThrow(yield* AsyncResult.poll(result))
    assert.strictEqual(after.attempts, 1)
    assert.strictEqual(yield* DeadLetters.count(), 0)
  })

  test("leaves a new letter when the task fails again", function* (on) {
    yield* work(on)
    yield* fail(7n)
    const [first] = yield* DeadLetters.list(Charge)
    yield* DeadLetters.replay(first!.id)
    yield* flush
    const [second, ...more] = yield* DeadLetters.list(Charge)
    assert.deepStrictEqual(more, [])
    assert.notStrictEqual(second!.id, first!.id)
    assert.deepStrictEqual(second!.taskId, first!.taskId)
  })

  test("reopens the task before a worker is there", function* (on) {
    const worker = yield* Effect.scoped(Effect.andThen(work(on), fail(7n)))
    const [entry] = yield* DeadLetters.list(Charge)
    yield* DeadLetters.replay(entry!.id)
    assert.strictEqual(yield* AsyncResult.state(worker), "PENDING")
    const waiting = yield* fork(AsyncResult.get(worker))
    yield* advance("1 minute")
    assertPending(waiting)
    yield* work(on, () => false)
    assert.strictEqual(yield* Fiber.join(waiting), "charged 7")
  })

  test("is safe to repeat: the task runs once", function* (on) {
    const { id, result, runs } = yield* failOnce(on)
    const answers = yield* Effect.all(
      [DeadLetters.replay(id), DeadLetters.replay(id), DeadLetters.replay(id)],
      { concurrency: "unbounded" }
    )
    assert.include(answers, true)
    assert.isFalse(yield* DeadLetters.replay(id))
    yield* advance("10 seconds")
    assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
    assert.strictEqual(runs(), 2)
  })

  test("answers false for an id without a letter", function* () {
    assert.isFalse(yield* DeadLetters.replay("nobody:0"))
  })

  const failingOnce = (operation: "publish" | "removeDeadLetters"): MemoryFixture.Options => {
    let armed = true
    const once =
      <A, B>(call: (input: A) => Effect.Effect<B, unknown>) =>
      (input: A) => {
        if (!armed) return call(input)
        armed = false
        return Effect.fail("cut off")
      }
    return operation === "publish"
      ? {
          broker: (driver) => ({
            // the first message is the task's own
            publish: (messages) =>
              messages.some(({ body }) => body.includes(`"generation":1`))
                ? once(driver.publish)(messages)
                : driver.publish(messages)
          })
        }
      : { backend: (driver) => ({ removeDeadLetters: once(driver.removeDeadLetters) }) }
  }

  test(
    "finishes a replay that was interrupted before its message was sent",
    function* (on) {
      let broken = true
      yield* work(on, () => broken)
      const result = yield* fail(7n)
      broken = false
      const [entry] = yield* DeadLetters.list(Charge)
      assert.instanceOf(yield* Effect.flip(DeadLetters.replay(entry!.id)), Broker.BrokerError)
      yield* advance("1 minute")
      assert.strictEqual(yield* AsyncResult.state(result), "PENDING")
      assert.strictEqual(yield* DeadLetters.count(), 1)
      assert.isTrue(yield* DeadLetters.replay(entry!.id))
      assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
    },
    failingOnce("publish")
  )

  test(
    "a waiter learns in an hour that the task of an interrupted replay is gone, and the letter can still be replayed",
    function* (on) {
      let broken = true
      yield* work(on, () => broken)
      const result = yield* fail(7n)
      broken = false
      const [entry] = yield* DeadLetters.list(Charge)
      yield* Effect.flip(DeadLetters.replay(entry!.id))
      const waiting = yield* fork(Effect.flip(AsyncResult.get(result)))
      yield* advance("59 minutes")
      assertPending(waiting)
      yield* advance("2 minutes")
      assert.strictEqual(reasonOf(yield* Fiber.join(waiting))._tag, "Forgotten")
      assert.isTrue(yield* DeadLetters.replay(entry!.id))
      assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
    },
    failingOnce("publish")
  )

  /** Delays the first message of a replay. */
  const slow = (duration: Duration.Input): MemoryFixture.Options => {
    let armed = true
    return {
      broker: (driver) => ({
        publish: (messages) => {
          if (!armed || !messages.some(({ generation }) => generation === 1)) return driver.publish(messages)
          armed = false
          return Effect.andThen(Effect.sleep(duration), driver.publish(messages))
        }
      })
    }
  }

  test(
    "starts over when its message was sent after the task was gone",
    function* (on) {
      const { id, result, runs } = yield* failOnce(on)
      const replaying = yield* fork(DeadLetters.replay(id))
      yield* advance("2 hours")
      assert.isTrue(yield* Fiber.join(replaying))
      assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
      assert.strictEqual(runs(), 2)
      assert.strictEqual(yield* DeadLetters.count(), 0)
    },
    slow("2 hours")
  )

  test(
    "finishes what it has begun when it is interrupted",
    function* (on) {
      const { id, result } = yield* failOnce(on)
      const replaying = yield* fork(DeadLetters.replay(id))
      yield* fork(Fiber.interrupt(replaying))
      yield* advance("1 second")
      assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
      assert.strictEqual(yield* DeadLetters.count(), 0)
    },
    slow("1 second")
  )

  test(
    "removes the letter of a replay that was interrupted after its message was sent",
    function* (on) {
      const { id, result, runs } = yield* failOnce(on)
      assert.strictEqual((yield* Effect.flip(DeadLetters.replay(id)))._tag, "BackendError")
      yield* advance("1 second")
      assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
      assert.isTrue(yield* DeadLetters.replay(id))
      yield* advance("10 seconds")
      assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
      assert.strictEqual(runs(), 2)
      assert.strictEqual(yield* DeadLetters.count(), 0)
    },
    failingOnce("removeDeadLetters")
  )

  test("refuses the letter of an undecodable message and keeps it", function* (on) {
    yield* work(on)
    yield* on.create("t1", { task: "charge" })
    yield* on.brokerDriver.publish([
      { id: "t1", task: "charge", queue: "default", priority: 0, delayMillis: 0, body: "no message" }
    ])
    yield* advance("1 second")
    const [entry] = yield* DeadLetters.list()
    assert.strictEqual(entry?.reason._tag, "PayloadInvalid")
    assert.strictEqual(entry?.raw, "no message")
    const error = yield* Effect.flip(DeadLetters.replay(entry!.id))
    assert(error instanceof DeadLetters.NotReplayable)
    assert.include(error.message, `dead letter ${entry!.id} cannot be replayed`)
    assert.strictEqual(yield* DeadLetters.count(), 1)
    // its task is not reopened for a message that is never sent
    assert.strictEqual(
      reasonOf(yield* Effect.flip(AsyncResult.get(Charge.result("t1"))))._tag,
      "PayloadInvalid"
    )
  })

  test("refuses a message of another version", function* (on) {
    yield* work(on)
    const body = JSON.stringify({ v: 2, id: "t1", task: "charge", payload: { amount: "7" } })
    yield* on.brokerDriver.publish([
      { id: "t1", task: "charge", queue: "default", priority: 0, delayMillis: 0, body }
    ])
    yield* advance("1 second")
    const [entry] = yield* DeadLetters.list()
    assert.strictEqual(entry?.raw, body)
    assert.instanceOf(yield* Effect.flip(DeadLetters.replay(entry!.id)), DeadLetters.NotReplayable)
  })

  test("works after the record's retention has run out", function* (on) {
    let broken = true
    yield* work(on, () => broken)
    const result = yield* fail(7n)
    yield* advance("61 seconds")
    assert.deepStrictEqual(yield* AsyncResult.poll(result), Option.none())
    const [entry] = yield* DeadLetters.list(Charge)
    broken = false
    assert.isTrue(yield* DeadLetters.replay(entry!.id))
    assert.strictEqual(yield* AsyncResult.get(result), "charged 7")
    assert.strictEqual(Option.getOrThrow(yield* AsyncResult.poll(result)).attempts, 1)
  })

  test("runs a task whose expiry has passed", function* (on) {
    const Brief = Task.make("brief", { expires: "1 minute", error: Schema.String })
    let broken = true
    yield* Layer.build(
      Worker.layer([Brief], { drainTimeout: 0 }).pipe(
        Layer.provide(Brief.toLayer(() => (broken ? Effect.fail("no") : Effect.void))),
        Layer.provide(on.layer)
      )
    )
    const result = yield* Brief.delay()
    yield* advance("2 minutes")
    const [entry] = yield* DeadLetters.list(Brief)
    broken = false
    yield* DeadLetters.replay(entry!.id)
    assert.isUndefined(yield* AsyncResult.get(result))
  })

  test(
    "works for 14 days, the default retention of letters",
    function* (on) {
      yield* Effect.scoped(Effect.andThen(work(on), fail(7n)))
      yield* advance("335 hours")
      assert.strictEqual(yield* DeadLetters.count(), 1)
      yield* advance("1 hour")
      assert.strictEqual(yield* DeadLetters.count(), 0)
    },
    // nothing else reads, so that two weeks pass at once
    { hints: false }
  )
})

describe("dead letters", () => {
  test("are not written for cancelled or expired tasks", function* () {
    const cancelled = yield* Charge.delay({ amount: 1n })
    yield* AsyncResult.cancel(cancelled)
    const expired = yield* Charge.delay({ amount: 1n }, { expires: "1 second" })
    yield* advance("1 second")
    assert.isTrue(yield* AsyncResult.failed(expired))
    assert.strictEqual(yield* DeadLetters.count(), 0)
  })

  test("are written for a task whose workers vanished", function* (on) {
    const result = yield* Charge.delay({ amount: 7n })
    for (let crash = 0; crash < 3; crash++) {
      const [delivery] = yield* on.brokerDriver.claim({
        queues: ["default"],
        max: 1,
        leaseMillis: 1000,
        worker: "w1"
      })
      yield* on.start(result.taskId, {
        task: "charge",
        token: `${crash}`,
        body: delivery!.body,
        leaseMillis: 1000,
        maxCrashes: 3
      })
      yield* advance("2 seconds")
    }
    yield* work(on)
    yield* advance("1 second")
    const reason = reasonOf(yield* Effect.flip(AsyncResult.get(result)))
    assert(reason._tag === "WorkerLost")
    assert.strictEqual(reason.worker, "w1")
    const [entry] = yield* DeadLetters.list(Charge)
    assert.instanceOf(entry?.reason, TaskFailed.WorkerLost)
    assert.strictEqual(Result.getOrThrow(entry.payload).amount, 7n)
  })
})
