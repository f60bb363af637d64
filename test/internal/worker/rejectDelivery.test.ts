import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, DeadLetters, Task, Worker } from "chicory"
import type { Heartbeat, Release } from "chicory/driver"
import { Clock, Context, Effect, Layer, Metric, Option } from "effect"
import { maxMessageBytes } from "../../../src/internal/driver/maxMessageBytes.ts"
import { captureLogs } from "../../../src/testing/suites/worker/captureLogs.ts"
import { advance, exitOf, fork, reasonOf } from "../../support/memoryFixture.ts"
import { withoutAges } from "../../support/withoutAges.ts"
import * as WorkerFixture from "./workerFixture.ts"

const nothing = { ready: 0, delayed: 0, claimed: 0 }
const Unknown = Task.make("unknown")

/** A running worker, with what its broker and its dead letters hold. */
const make = Effect.fnUntraced(function* (options: WorkerFixture.Options = {}) {
  const worker = yield* WorkerFixture.make(options)
  const { fixture } = worker
  return {
    ...worker,
    publish: (body: string, envelope: { readonly id: string; readonly task: string }) =>
      fixture.broker.publish.one({ ...envelope, queue: "default", priority: 100, delayMillis: 0, body }),
    letters: Effect.provideContext(DeadLetters.list(), fixture.context),
    counts: Effect.map(fixture.broker.counts(["default"]), (counts) => withoutAges(counts)[0])
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

describe("the dead letter of a task that no handler runs", () => {
  const written = Effect.map(Metric.snapshot, (all) =>
    Object.fromEntries(
      all
        .filter(({ id }) => id === "chicory.task.dead_letters")
        .map(
          ({ attributes, state }) =>
            [
              attributes?.["chicory.task.name"] ?? "",
              Number((state as { readonly count: number | bigint }).count)
            ] as const
        )
        .filter(([, count]) => count > 0)
    )
  )

  it.effect("is counted, by the task if the message names one", () =>
    Effect.gen(function* () {
      const { fixture, publish, start } = yield* make({
        worker: { unknownTaskGrace: 0 },
        broker: (driver) => ({
          claim: (request) =>
            Effect.map(driver.claim(request), (deliveries) =>
              deliveries.map((delivery) =>
                delivery.id === "nameless" ? { ...delivery, id: undefined, task: undefined } : delivery
              )
            )
        })
      })
      yield* fixture.create("known", { task: "work" })
      yield* publish("nonsense", { id: "known", task: "work" })
      yield* publish("nonsense", { id: "without a record", task: "work" })
      yield* publish("nonsense", { id: "nameless", task: "work" })
      yield* Effect.provideContext(Unknown.delayAll([undefined, undefined, undefined]), fixture.context)
      yield* start
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* written, { "": 1, work: 2, unknown: 3 })
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("is not counted, nor its task, where another run has taken the task over", () =>
    Effect.gen(function* () {
      const { fixture, publish } = yield* make({
        backend: () => ({ settle: () => Effect.succeed(["Lost" as const]) })
      })
      const worker = Context.get(
        yield* Layer.build(
          Worker.layer([WorkerFixture.Work], { drainTimeout: 0 }).pipe(
            Layer.provide(WorkerFixture.Work.toLayer(({ n }) => Effect.succeed(n))),
            Layer.provide(fixture.layer)
          )
        ),
        Worker.Worker
      )
      yield* fixture.create("a", { task: "work" })
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* advance("1 second")
      assert.strictEqual(fixture.count("settle"), 1)
      assert.strictEqual((yield* worker.stats).failed, 0)
      assert.deepStrictEqual(yield* written, {})
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("a task that no handler runs, and that cannot be ended since the store is away,", () => {
  const BEGAN = "Failed to call the store memory; calls are repeated until it answers again"

  /** The lines at Warning and Error. */
  const alarms = (logs: ReturnType<typeof captureLogs>) => [...logs.texts("Warn"), ...logs.texts("Error")]

  it.effect("is one outage in the log, however often its message comes again", () => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      let isAway = true
      const { counts, fixture, publish, start } = yield* make({
        worker: { lease: "1 second" },
        backend: (driver) => ({
          start: (starts) => (isAway ? Effect.fail("it is away") : driver.start(starts))
        })
      })
      yield* fixture.create("a", { task: "work" })
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* start
      for (let second = 0; second < 60; second++) yield* advance("1 second")
      assert.isAbove(logs.beginning("Failed to end a task without a handler").length, 20)
      assert.deepStrictEqual(alarms(logs), [BEGAN])
      isAway = false
      yield* advance("3 seconds")
      assert.deepStrictEqual(yield* counts, nothing)
      assert.lengthOf(logs.beginning("The store memory answers again"), 1)
    }).pipe(logs.capture)
  })

  it.effect("is one outage in the log beside all others of its batch", () => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      const { fixture, start } = yield* make({
        worker: { unknownTaskGrace: 0 },
        backend: () => ({ start: () => Effect.fail("it is away") })
      })
      yield* Effect.provideContext(Unknown.delayAll(Array(100).fill(undefined)), fixture.context)
      yield* start
      yield* advance("3 seconds")
      assert.isAtLeast(logs.beginning("Failed to end a task without a handler").length, 100)
      assert.deepStrictEqual(alarms(logs), [BEGAN])
    }).pipe(logs.capture)
  })

  it.effect("is one outage in the log where its message cannot be parked", () => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      const { publish, start } = yield* make({
        backend: () => ({ parkMessage: () => Effect.fail("it is away") })
      })
      // there is no record of it
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* start
      yield* advance("5 seconds")
      assert.lengthOf(logs.beginning("Failed to park a message"), 1)
      assert.deepStrictEqual(alarms(logs), [BEGAN])
    }).pipe(logs.capture)
  })

  it.effect("is a line at Error where the store refuses it for good", () => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      const { publish, start } = yield* make({
        backend: () => ({ isPermanent: () => true, parkMessage: () => Effect.fail("it is no table") })
      })
      yield* publish("nonsense", { id: "a", task: "work" })
      yield* start
      yield* advance("5 seconds")
      assert.deepStrictEqual(logs.texts("Error"), ["Failed to park a message; it will be redelivered"])
    }).pipe(logs.capture)
  })
})

/** A worker that does not know a task, on a store that claims by task or not. */
const makeUnknownOn = (byTask: boolean) =>
  Effect.fnUntraced(function* (options: WorkerFixture.Options = {}) {
    const releases: Array<Release & { readonly at: number }> = []
    const worker = yield* make({
      worker: { unknownTaskGrace: "10 seconds" },
      ...options,
      broker: (driver) => ({
        setAside: byTask ? driver.setAside : undefined,
        release: (batch) =>
          Effect.flatMap(Clock.currentTimeMillis, (at) => {
            releases.push(...batch.map((release) => ({ ...release, at })))
            return driver.release(batch)
          })
      })
    })
    yield* Effect.provideContext(Unknown.delay({ id: "u" }), worker.fixture.context)
    yield* worker.start
    const state = Effect.map(worker.record("u"), (record) => record.state)
    /** Registers another worker for 20 seconds. */
    const register = (other: Partial<Heartbeat>) =>
      worker.fixture.driver.heartbeat(
        {
          id: "other",
          hostname: "other",
          pid: 1,
          queues: ["default"],
          tasks: [],
          concurrency: 1,
          running: 0,
          ...other
        },
        20_000
      )
    return { ...worker, releases, register, state }
  })

describe("a message of an unknown task, on a store that does not claim by task,", () => {
  const makeUnknown = makeUnknownOn(false)

  it.effect("is released with growing delays while its grace lasts", () =>
    Effect.gen(function* () {
      const { releases, state } = yield* makeUnknown({ worker: { unknownTaskGrace: "2 minutes" } })
      yield* advance("119 seconds")
      assert.deepStrictEqual(
        releases.map(({ afterMillis, at }) => [at, afterMillis]),
        [
          [0, 1000],
          [1000, 1000],
          [2000, 2000],
          [4000, 4000],
          [8000, 8000],
          [16_000, 16_000],
          [32_000, 30_000],
          [62_000, 30_000],
          [92_000, 28_000]
        ]
      )
      assert.strictEqual(yield* state, "PENDING")
    })
  )

  it.effect("keeps its due time, so that its age is counted from the enqueue", () =>
    Effect.gen(function* () {
      const { releases } = yield* makeUnknown()
      yield* advance("9 seconds")
      assert.isTrue(releases.every(({ preserveDueTime }) => preserveDueTime === true))
    })
  )
})

for (const byTask of [true, false]) {
  describe(`a message of an unknown task, on a store that ${byTask ? "claims" : "does not claim"} by task,`, () => {
    const makeUnknown = makeUnknownOn(byTask)

    it.effect("ends as UnknownTask with a dead letter when its grace is over", () =>
      Effect.gen(function* () {
        const { counts, letters, state } = yield* makeUnknown()
        yield* advance("11 seconds")
        assert.strictEqual(yield* state, "FAILURE")
        const [letter] = yield* letters
        assert.strictEqual(letter?.reason._tag, "UnknownTask")
        assert.deepStrictEqual(yield* counts, nothing)
      })
    )

    it.effect("has a grace of an hour by default", () =>
      Effect.gen(function* () {
        const { letters, state } = yield* makeUnknown({ worker: {} })
        yield* advance("3599 seconds")
        assert.strictEqual(yield* state, "PENDING")
        yield* advance("2 seconds")
        assert.strictEqual((yield* letters)[0]?.reason._tag, "UnknownTask")
      })
    )

    it.effect("does not end while a live worker of its queue lists the task", () =>
      Effect.gen(function* () {
        const { letters, register, state } = yield* makeUnknown()
        yield* register({ tasks: ["other", "unknown"] })
        yield* advance("19 seconds")
        assert.strictEqual(yield* state, "PENDING")
        yield* advance("11 seconds")
        assert.strictEqual((yield* letters)[0]?.reason._tag, "UnknownTask", "that worker is gone")
      })
    )

    it.effect("ends although a worker of another queue lists the task", () =>
      Effect.gen(function* () {
        const { letters, register } = yield* makeUnknown()
        yield* register({ queues: ["another"], tasks: ["unknown"] })
        yield* advance("11 seconds")
        assert.strictEqual((yield* letters)[0]?.reason._tag, "UnknownTask")
      })
    )

    it.effect("ends with the workers that listened to its queue without knowing the task", () =>
      Effect.gen(function* () {
        const { fixture, letters, register } = yield* makeUnknown()
        const [self] = yield* fixture.backend.workers
        for (let n = 0; n < 20; n++) yield* register({ id: `!${n}`, queues: [n % 2 ? "default" : "another"] })
        yield* advance("11 seconds")
        const [letter] = yield* letters
        assert(letter?.reason._tag === "UnknownTask")
        const listed = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19].map((n) => `!${n}`)
        assert.deepStrictEqual(letter.reason.workers, [...listed, self!.id].toSorted().slice(0, 10))
        assert.include(letter.reason.message, "these workers listen to it: !1, !11")
      })
    )

    it.effect("does not end while the list of workers cannot be read", () =>
      Effect.gen(function* () {
        let isDown = true
        const { letters, state } = yield* makeUnknown({
          backend: ({ workers }) => ({
            workers: Effect.suspend(() => (isDown ? Effect.fail("it is down") : workers))
          })
        })
        yield* advance("40 seconds")
        assert.strictEqual(yield* state, "PENDING")
        isDown = false
        yield* advance("30 seconds")
        assert.strictEqual((yield* letters)[0]?.reason._tag, "UnknownTask")
      })
    )

    it.effect("does not end while the list of workers lacks this worker, and so perhaps others", () =>
      Effect.gen(function* () {
        const { state } = yield* makeUnknown({ backend: () => ({ heartbeat: () => Effect.fail("refused") }) })
        yield* advance("5 minutes")
        assert.strictEqual(yield* state, "PENDING")
      })
    )

    it.effect("shares one read of the list of workers with others", () =>
      Effect.gen(function* () {
        let reads = 0
        const { fixture, letters } = yield* makeUnknown({
          backend: ({ workers }) => ({
            workers: Effect.andThen(
              Effect.sync(() => reads++),
              workers
            )
          })
        })
        yield* Effect.provideContext(Unknown.delayAll(Array(15).fill(undefined)), fixture.context)
        yield* advance("15 seconds")
        assert.deepStrictEqual([(yield* letters).length, reads], [16, 1])
      })
    )
  })
}

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
