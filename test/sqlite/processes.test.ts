/** The guarantees with real processes on one file: killed, told to stop, cut off between two steps. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, DeadLetters, type Worker } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Schedule, type Scope, Stream } from "effect"
import { Ndjson } from "effect/encoding"
import { ChildProcess } from "effect/process"
import { Count, Keyed, Order, OutOfStock, Told } from "./processTasks.ts"
import { temporaryFile } from "./temporary.ts"

const program = (name: string, ...args: ReadonlyArray<string>) =>
  ChildProcess.make(
    process.execPath,
    ["--conditions=chicory-src", `${import.meta.dirname}/${name}`, ...args],
    { stderr: "inherit", forceKillAfter: "5 seconds" }
  )

/** A worker process that is ready. It is ended with the scope. */
const startWorker = Effect.fnUntraced(function* (filename: string, options?: Worker.Options) {
  const child = yield* program("processWorker.ts", filename, JSON.stringify(options ?? {}))
  const told: Array<Told> = []
  const waiting = new Set<{ readonly check: () => boolean; readonly done: Deferred.Deferred<void> }>()
  const reading = yield* child.stdout.pipe(
    Stream.pipeThroughChannel(Ndjson.decodeSchema(Told)()),
    Stream.runForEach((one) =>
      Effect.sync(() => {
        told.push(one)
        for (const waiter of waiting) if (waiter.check()) Deferred.doneUnsafe(waiter.done, Effect.void)
      })
    ),
    Effect.forkScoped
  )
  /** Waits until what it has told passes the check. */
  const until = (check: (told: ReadonlyArray<Told>) => boolean) =>
    Effect.suspend(() => {
      if (check(told)) return Effect.void
      const waiter = { check: () => check(told), done: Deferred.makeUnsafe<void>() }
      waiting.add(waiter)
      return Effect.ensuring(
        Deferred.await(waiter.done),
        Effect.sync(() => waiting.delete(waiter))
      )
    })
  yield* until((told) => told.some(({ _tag }) => _tag === "Ready"))
  return {
    pid: child.pid,
    told,
    until,
    began: (count = 1) => until((told) => told.filter(({ _tag }) => _tag === "Began").length >= count),
    /** No goodbye. */
    kill: child.kill({ killSignal: "SIGKILL" }),
    terminate: Effect.sync(() => process.kill(child.pid, "SIGTERM")),
    /** Waits until the process has ended, and all that it told is known; tells whether it ended by itself. */
    ended: Effect.tap(Effect.map(Effect.exit(child.exitCode), Exit.isSuccess), () => Fiber.join(reading))
  }
})

const began = (told: ReadonlyArray<Told>) => told.filter(({ _tag }) => _tag === "Began").length

const poll = <A, E, R, P>(handle: AsyncResult.AsyncResult<A, E, R, P>) =>
  Effect.map(AsyncResult.poll(handle), Option.getOrThrow)

/** Waits until no message is left: a message is acked after its result can be read. */
const drained = Effect.repeat(Broker.counts(["default"]), {
  schedule: Schedule.spaced("50 millis"),
  until: ([counts]) => counts !== undefined && counts.ready + counts.delayed + counts.claimed === 0
})

/** A test with a file of its own, and this process as the producer. */
const test = (
  name: string,
  body: (
    filename: string
  ) => Effect.Effect<void, unknown, Scope.Scope | NodeServices.NodeServices | Backend.Backend | Broker.Broker>
) =>
  it.live(
    name,
    () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        yield* Effect.provide(
          body(filename),
          Layer.mergeAll(NodeServices.layer, SqliteStore.layer({ filename }))
        )
      }),
    { timeout: 60_000 }
  )

describe("processes that are killed", () => {
  test("1: a task in mid-run is taken over after its lease, and has one outcome", (filename) =>
    Effect.gen(function* () {
      const options = { lease: "1 second" } as const
      const first = yield* startWorker(filename, options)
      const handle = yield* Count.delay({ n: 1, millis: 600_000 })
      yield* first.began()
      const second = yield* startWorker(filename, options)
      yield* first.kill
      yield* second.began()
      const seen = yield* poll(handle)
      assert.strictEqual(seen.attempts, 2)
      assert.strictEqual(seen.state, "STARTED")
      assert.isTrue(Option.isSome(seen.worker) && seen.worker.value.includes(`-${second.pid}-`))
      assert.strictEqual(yield* AsyncResult.cancel(handle), "Requested")
      const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "10 seconds" }))
      assert(failed._tag === "TaskFailed")
      assert.strictEqual(failed.reason._tag, "Cancelled")
      assert.strictEqual(began(first.told) + began(second.told), 2)
    }))

  test("1: of many tasks none is lost and none has two outcomes", (filename) =>
    Effect.gen(function* () {
      const options = { lease: "1 second", concurrency: 8 } as const
      const workers = yield* Effect.all([startWorker(filename, options), startWorker(filename, options)], {
        concurrency: 2
      })
      const [first, second] = workers
      const payloads = Array.from({ length: 200 }, (_, n) => ({ n, millis: 20 }))
      const handles = yield* Count.delayAll(payloads)
      yield* first.began(20)
      yield* first.kill
      const values = yield* AsyncResult.all(handles, { timeout: "40 seconds" })
      assert.deepStrictEqual(
        values.map(({ n }) => n),
        payloads.map(({ n }) => n)
      )
      assert.isFalse(yield* first.ended)
      const results = yield* Effect.forEach(handles, poll)
      assert.isTrue(results.every(({ state }) => state === "SUCCESS"))
      const again = results.filter(({ attempts }) => attempts > 1)
      assert.isAtMost(again.length, options.concurrency)
      assert.isTrue(again.every(({ attempts }) => attempts === 2))
      // what was started is what ended, and what was in the hands of the one that was killed
      assert.isAtMost(began(first.told) + began(second.told), 200 + again.length)
      assert.isAtLeast(began(first.told) + began(second.told), 200)
      assert.isTrue(again.every(({ exit }) => Option.isSome(exit)))
      assert.strictEqual(yield* DeadLetters.count(), 0)
      yield* drained
    }))

  test("8: a task that kills its process again and again ends as WorkerLost", (filename) =>
    Effect.gen(function* () {
      const options = { lease: "500 millis" } as const
      const handle = yield* Count.delay({ n: 1, millis: 600_000 })
      for (let crash = 0; crash < 3; crash++) {
        const worker = yield* startWorker(filename, options)
        yield* worker.began()
        yield* worker.kill
      }
      const last = yield* startWorker(filename, options)
      const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "10 seconds" }))
      assert(failed._tag === "TaskFailed")
      assert.strictEqual(failed.reason._tag, "WorkerLost")
      assert.strictEqual(failed.attempts, 3)
      assert.strictEqual(began(last.told), 0)
      const [letter] = yield* DeadLetters.list(Count)
      assert.strictEqual(letter?.reason._tag, "WorkerLost")
    }))

  test("9: a waiter of another process goes on when workers come and go", (filename) =>
    Effect.gen(function* () {
      const handle = yield* Count.delay({ n: 1, millis: 0 })
      const waiter = yield* Effect.forkChild(AsyncResult.get(handle, { timeout: "30 seconds" }))
      const worker = yield* startWorker(filename)
      assert.strictEqual((yield* Fiber.join(waiter)).pid, worker.pid)
    }))
})

describe("processes that are told to stop", () => {
  test("7: what runs finishes within the time for it, and the process ends by itself", (filename) =>
    Effect.gen(function* () {
      const worker = yield* startWorker(filename, { drainTimeout: "30 seconds", lease: "1 second" })
      const handle = yield* Count.delay({ n: 1, millis: 2000 })
      yield* worker.began()
      yield* worker.terminate
      yield* worker.until((told) => told.some(({ _tag }) => _tag === "Stopping"))
      const later = yield* Count.delay({ n: 2, millis: 0 })
      const value = yield* AsyncResult.get(handle, { timeout: "20 seconds" })
      assert.deepStrictEqual(value, { n: 1, pid: worker.pid })
      assert.isTrue(yield* worker.ended)
      assert.strictEqual((yield* poll(handle)).attempts, 1)
      assert.strictEqual(yield* AsyncResult.state(later), "PENDING", "it claimed nothing more")
      assert.strictEqual(began(worker.told), 1)
    }))

  test("7: what does not is put back at once, nothing counted, and run elsewhere long before the lease is over", (filename) =>
    Effect.gen(function* () {
      const options = { drainTimeout: "200 millis", lease: "10 minutes" } as const
      const first = yield* startWorker(filename, options)
      const handle = yield* Count.delay({ n: 1, millis: 600_000 })
      yield* first.began()
      const second = yield* startWorker(filename, options)
      yield* first.terminate
      assert.isTrue(yield* first.ended)
      assert.isTrue(first.told.some(({ _tag }) => _tag === "Interrupted"))
      yield* second.began()
      const seen = yield* poll(handle)
      assert.strictEqual(seen.attempts, 1)
      assert.isTrue(Option.isSome(seen.worker) && seen.worker.value.includes(`-${second.pid}-`))
    }))

  test("7: an idle worker ends at once", (filename) =>
    Effect.gen(function* () {
      const worker = yield* startWorker(filename)
      yield* worker.terminate
      assert.isTrue(yield* Effect.timeout(worker.ended, "10 seconds"))
    }))
})

describe("errors", () => {
  test("5: a typed error crosses the border of the process as the same class", (filename) =>
    Effect.gen(function* () {
      yield* startWorker(filename)
      const handle = yield* Order.delay("chili")
      const error = yield* AsyncResult.get(handle, { timeout: "20 seconds" }).pipe(
        Effect.andThen(Effect.die("the task fails")),
        Effect.catchReason("TaskFailed", "Failed", (reason) => Effect.succeed(reason.error))
      )
      assert.instanceOf(error, OutOfStock)
      assert.strictEqual(error.item, "chili")
      assert.strictEqual(error.since.getTime(), 0)
    }))
})

describe("producers that are killed between the steps of an enqueue", () => {
  const killed = (filename: string, step: string) =>
    Effect.gen(function* () {
      const child = yield* program("processProducer.ts", filename, step)
      const exit = yield* Effect.exit(child.exitCode)
      assert.isTrue(Exit.isFailure(exit), "it ended by a signal")
    })

  for (const step of ["publish", "markPublished"]) {
    test(`1: before ${step}: the key is not stranded, and the task runs once`, (filename) =>
      Effect.gen(function* () {
        yield* killed(filename, step)
        const handle = yield* Keyed.delay(7)
        const worker = yield* startWorker(filename, { lease: "1 second" })
        assert.strictEqual(yield* AsyncResult.get(handle, { timeout: "20 seconds" }), 7)
        assert.strictEqual((yield* Keyed.delay(7)).taskId, handle.taskId)
        yield* drained
        assert.strictEqual(began(worker.told), 1)
      }))
  }

  test("1: between a message and its record: the task runs", (filename) =>
    Effect.gen(function* () {
      yield* killed(filename, "create")
      const worker = yield* startWorker(filename)
      yield* worker.began()
      assert.strictEqual(began(worker.told), 1)
    }))
})
