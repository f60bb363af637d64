import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, DeadLetters, Task } from "chicory"
import type { Release } from "chicory/driver"
import { Clock, Effect, Option } from "effect"
import { maxMessageBytes } from "../../../src/internal/driver/maxMessageBytes.ts"
import { advance, exitOf, fork, reasonOf } from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

const nothing = { ready: 0, delayed: 0, claimed: 0 }

/** A running worker, with what its broker and its dead letters hold. */
const make = Effect.fnUntraced(function* (options: WorkerFixture.Options = {}) {
  const worker = yield* WorkerFixture.make(options)
  const { fixture } = worker
  return {
    ...worker,
    publish: (body: string, envelope: { readonly id: string; readonly task: string }) =>
      fixture.broker.publish.one({ ...envelope, queue: "default", priority: 100, delayMillis: 0, body }),
    letters: Effect.provideContext(DeadLetters.list(), fixture.context),
    counts: Effect.map(fixture.broker.counts(["default"]), ([counts]) => counts)
  }
})

describe("guarantee 8: an undecodable message", () => {
  it.effect("of a known task ends the task as PayloadInvalid", () =>
    Effect.gen(function* () {
      const { counts, fixture, publish, record, start } = yield* make()
      yield* fixture.create("a", { task: "work" })
      const waiting = yield* fork(
        Effect.provideContext(Effect.flip(AsyncResult.get(WorkerFixture.Work.result("a"))), fixture.context)
      )
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* start
      yield* advance("1 second")
      assert.strictEqual((yield* record("a")).state, "FAILURE")
      assert.strictEqual(reasonOf(yield* exitOf(waiting))._tag, "PayloadInvalid")
      assert.deepStrictEqual(yield* counts, nothing)
    })
  )

  it.effect("is dead-lettered with its bytes", () =>
    Effect.gen(function* () {
      const { letters, publish, start } = yield* make()
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* start
      const [letter] = yield* letters
      assert.strictEqual(letter?.raw, "nonsense")
      assert.strictEqual(letter?.reason._tag, "PayloadInvalid")
    })
  )

  it.effect("that the store refuses with its bytes is dead-lettered without them, if they are many", () =>
    Effect.gen(function* () {
      const { counts, letters, publish, start } = yield* make({
        backend: (driver) => ({
          isPermanent: () => true,
          settle: () => Effect.fail("it is too large"),
          parkMessage: (messages) =>
            messages[0].body.length > 0 ? Effect.fail("it is too large") : driver.parkMessage(messages)
        })
      })
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* publish("x".repeat(100_000), { id: "b", task: "work" })
      yield* start
      yield* advance("5 seconds")
      assert.deepStrictEqual(
        (yield* letters).map(({ raw }) => raw),
        [""]
      )
      assert.deepStrictEqual(yield* counts, { ...nothing, claimed: 1 })
    })
  )

  it.effect("without an envelope is dead-lettered without a task", () =>
    Effect.gen(function* () {
      const { counts, letters, publish, start } = yield* make({
        broker: (driver) => ({
          claim: (request) =>
            Effect.map(driver.claim(request), (deliveries) =>
              deliveries.map((delivery) => ({ ...delivery, id: undefined, task: undefined }))
            )
        })
      })
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* start
      const [letter] = yield* letters
      assert.strictEqual(letter?.raw, "nonsense")
      assert.deepStrictEqual(letter?.taskId, Option.none())
      assert.deepStrictEqual(yield* counts, nothing)
    })
  )

  it.effect("that is oversized, and that the store did not load, is dead-lettered with its size", () =>
    Effect.gen(function* () {
      const { counts, fixture, letters, publish, ran, record, start } = yield* make({
        broker: (driver) => ({
          claim: (request) =>
            Effect.map(driver.claim(request), (deliveries) =>
              deliveries.map((delivery) => ({ ...delivery, body: "", oversizedBytes: 60_000_000 }))
            )
        })
      })
      yield* fixture.create("a", { task: "work" })
      yield* publish("{}", { id: "a", task: "work" })
      yield* start
      const [letter] = yield* letters
      assert.strictEqual(letter?.raw, "")
      assert(letter?.reason._tag === "PayloadInvalid")
      assert.include(letter.reason.issue, `60000000 bytes, and a message has at most ${maxMessageBytes}`)
      assert.strictEqual((yield* record("a")).state, "FAILURE")
      assert.deepStrictEqual([ran, yield* counts], [[], nothing])
    })
  )

  it.effect("of an ended task keeps the record and is dead-lettered", () =>
    Effect.gen(function* () {
      const { enqueue, letters, publish, record, start } = yield* make()
      yield* start
      yield* enqueue("a")
      yield* advance("1 second")
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* advance("1 second")
      assert.strictEqual((yield* record("a")).state, "SUCCESS")
      assert.strictEqual((yield* letters).length, 1)
    })
  )

  it.effect("whose envelope names another task is not run", () =>
    Effect.gen(function* () {
      const { letters, publish, ran, start } = yield* make()
      const body = `{"v":1,"id":"b","generation":0,"task":"work","queue":"default","payload":{"n":1},"retries":0,"priority":100}`
      yield* publish(body, { id: "a", task: "work" })
      yield* start
      assert.deepStrictEqual(ran, [])
      const [letter] = yield* letters
      assert.include(letter?.reason.message, "names another task")
    })
  )
})

describe("a message of an unknown task", () => {
  const Unknown = Task.make("unknown")

  const makeUnknown = Effect.fnUntraced(function* () {
    const releases: Array<Release & { readonly at: number }> = []
    const worker = yield* make({
      worker: { unknownTaskGrace: "10 seconds" },
      broker: (driver) => ({
        release: (batch) =>
          Effect.flatMap(Clock.currentTimeMillis, (at) => {
            releases.push(...batch.map((release) => ({ ...release, at })))
            return driver.release(batch)
          })
      })
    })
    yield* Effect.provideContext(Unknown.delay(undefined, { id: "u" }), worker.fixture.context)
    yield* worker.start
    return { ...worker, releases }
  })

  it.effect("is released with growing delays while its grace lasts", () =>
    Effect.gen(function* () {
      const { record, releases } = yield* makeUnknown()
      yield* advance("9 seconds")
      assert.deepStrictEqual(
        releases.map(({ afterMillis, at }) => [at, afterMillis]),
        [
          [0, 1000],
          [1000, 1000],
          [2000, 2000],
          [4000, 4000],
          [8000, 2000]
        ]
      )
      assert.strictEqual((yield* record("u")).state, "PENDING")
    })
  )

  it.effect("keeps its due time, so that its age is counted from the enqueue", () =>
    Effect.gen(function* () {
      const { releases } = yield* makeUnknown()
      yield* advance("9 seconds")
      assert.isTrue(releases.every(({ preserveDueTime }) => preserveDueTime === true))
    })
  )

  it.effect("ends as UnknownTask with a dead letter when its grace is over", () =>
    Effect.gen(function* () {
      const { counts, letters, record } = yield* makeUnknown()
      yield* advance("11 seconds")
      assert.strictEqual((yield* record("u")).state, "FAILURE")
      const [letter] = yield* letters
      assert.strictEqual(letter?.reason._tag, "UnknownTask")
      assert.deepStrictEqual(yield* counts, nothing)
    })
  )
})

describe("a message whose task the store refuses to start", () => {
  /** A store that starts no task with the id "bad". */
  const makeUnstartable = Effect.fnUntraced(function* (parks: boolean) {
    const worker = yield* make({
      worker: { lease: "10 seconds" },
      backend: (driver) => ({
        isPermanent: () => true,
        start: (starts) =>
          starts.some(({ id }) => id === "bad") ? Effect.fail("it holds no such id") : driver.start(starts),
        parkMessage: (letters) => (parks ? driver.parkMessage(letters) : Effect.fail("it is full"))
      })
    })
    for (const [n, id] of ["a", "b", "c", "bad", "d"].entries()) yield* worker.enqueue(id, n)
    yield* worker.start
    yield* advance("1 second")
    return worker
  })

  it.effect("is dead-lettered, and the others of its batch are started", () =>
    Effect.gen(function* () {
      const { counts, letters, ran } = yield* makeUnstartable(true)
      assert.sameMembers(ran, [0, 1, 2, 4])
      const [letter] = yield* letters
      assert.strictEqual(letter?.queue, "default")
      assert.strictEqual(letter?.reason._tag, "PayloadInvalid")
      assert.include(letter?.reason.message, "it holds no such id")
      assert.include(String(letter?.raw), `"id":"bad"`)
      assert.deepStrictEqual(yield* counts, nothing)
    })
  )

  it.effect("is redelivered when its dead letter cannot be written", () =>
    Effect.gen(function* () {
      const { counts, fixture, ran } = yield* makeUnstartable(false)
      assert.sameMembers(ran, [0, 1, 2, 4])
      assert.deepStrictEqual(yield* counts, { ready: 0, delayed: 0, claimed: 1 })
      const tried = fixture.count("parkMessage")
      yield* advance("11 seconds")
      assert.isAbove(fixture.count("parkMessage"), tried)
    })
  )
})
