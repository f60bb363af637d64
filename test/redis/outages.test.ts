/** Guarantee 9 on Redis: a server that stops, loses data or scripts, freezes, pauses or cuts its clients. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { Duration, Effect, Exit, Fiber, Latch, Scope } from "effect"
import { FIELDS } from "../../src/redis/RecordText.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { openStore, testWithServer as test, untilSubscribed } from "./storeFixture.ts"

const payloads = (count: number, millis: number) => Array.from({ length: count }, (_, n) => ({ n, millis }))

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

/** Counts the runs that ended by a crash of their worker. */
const crashesOf = Effect.fnUntraced(function* (server: Server) {
  const keys = (yield* server.command("KEYS", "{chicory:0}:task:*")) as ReadonlyArray<string>
  const at = FIELDS.indexOf("crashes")
  let crashes = 0
  for (const key of keys) crashes += Number(String(yield* server.command("GET", key)).split(" ")[at])
  return crashes
})

/** Options of a store whose sweep of waiters does not run during a test. */
const unswept = { sweepInterval: "60 seconds" } as const

/** Prints a measurement if `CHICORY_FIGURES` is set. */
const report = (name: string, millis: number) =>
  Effect.sync(() => process.env["CHICORY_FIGURES"] && console.log(`${name}: ${Math.round(millis)} ms`))

describeWithServers("guarantee 9: outages of Redis", () => {
  describe.concurrent("restarts", () => {
    test(
      "a killed server that restarts with its data loses no confirmed task",
      { persistent: true },
      (server) =>
        Effect.gen(function* () {
          const producer = yield* openStore(server)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server), Count, runs.layer, {
            lease: "2 seconds",
            concurrency: 8
          })
          yield* Effect.gen(function* () {
            const handles = yield* Count.delayAll(payloads(200, 30))
            const later = yield* Count.delay({ n: 200, millis: 0 }, { delay: "1 second" })
            const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
            yield* runs.untilEnded(40)
            yield* server.kill
            const meanwhile = yield* Effect.forkChild(Count.delay({ n: 201, millis: 0 }))
            yield* Effect.sleep("500 millis")
            yield* server.start
            const [millis, values] = yield* timed(Fiber.join(waiting))
            yield* report("killed with its data, 160 tasks left", millis)
            assert.deepStrictEqual(values, numbers(200))
            assert.isBelow(millis, 12_000)
            assert.strictEqual(yield* AsyncResult.get(later), 200)
            // the call may have failed although its task was stored
            const accepted = yield* Fiber.await(meanwhile)
            if (Exit.isSuccess(accepted)) {
              assert.strictEqual(yield* AsyncResult.get(accepted.value), 201)
            }
          }).pipe(Effect.provideContext(producer))
        })
    )

    test(
      "tasks that are enqueued after a restart without data run, and their waiters are notified",
      {},
      (server) =>
        Effect.gen(function* () {
          const producer = yield* openStore(server, unswept)
          const runs = countingHandler()
          yield* startWorker(yield* openStore(server, unswept), Count, runs.layer, { concurrency: 2 })
          yield* Effect.gen(function* () {
            // a task that is lost, one that is never enqueued, and one that is enqueued after the loss
            const running = yield* Effect.forkChild(
              Effect.exit(AsyncResult.get(yield* Count.delay({ n: 1, millis: 600_000 })))
            )
            const unknown = yield* Effect.forkChild(
              Effect.flip(AsyncResult.get(Count.result("nobody"), { timeout: "6 seconds" }))
            )
            const awaited = yield* Effect.forkChild(AsyncResult.get(Count.result("mine")))
            yield* runs.untilBegun(1)
            yield* untilSubscribed(server, 2)
            yield* server.kill
            yield* server.start
            const [recovered] = yield* timed(roundTrip(2))
            yield* report("killed without its data, first task", recovered)
            assert.isBelow(recovered, 10_000)
            yield* untilSubscribed(server, 2)
            const latencies: Array<number> = []
            for (const n of [3, 4, 5]) latencies.push((yield* timed(roundTrip(n)))[0])
            yield* report("then", Math.max(...latencies))
            assert.isBelow(Math.max(...latencies), 1_000)

            // the store resyncs after the reconnect: the lost task fails its waiter, and its handler is interrupted
            const gone = yield* Fiber.join(running)
            assert(Exit.isFailure(gone))
            assert.include(String(gone.cause), "orgotten")
            yield* runs.untilInterrupted
            assert.isUndefined(awaited.pollUnsafe())
            yield* Count.delay({ n: 6, millis: 0 }, { id: "mine" })
            const [notified, value] = yield* timed(Fiber.join(awaited))
            yield* report("waiter of an id that is enqueued after the loss", notified)
            assert.strictEqual(value, 6)
            assert.isBelow(notified, 2_500)
            assert.strictEqual((yield* Fiber.join(unknown))._tag, "TimeoutError")
          }).pipe(Effect.provideContext(producer))
        })
    )
  })

  describe.concurrent("cut connections", () => {
    test("no task is lost while clients are cut repeatedly", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server), Count, runs.layer, {
          lease: "2 seconds",
          concurrency: 8
        })
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll(payloads(200, 30))
          const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
          for (const done of [20, 60, 100, 140]) {
            yield* runs.untilEnded(done)
            assert.isAtLeast(Number(yield* server.command("CLIENT", "KILL", "TYPE", "normal")), 1)
          }
          const [millis, values] = yield* timed(Fiber.join(waiting))
          yield* report("callers killed four times, 60 tasks left", millis)
          assert.deepStrictEqual(values, numbers(200))
          assert.isBelow(millis, 12_000)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("a waiter reads a result that was stored while it could not resubscribe", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server, unswept)
        const gone = yield* Latch.make(false)
        const runs = countingHandler((n) => (n === 7 ? gone.await : Effect.void))
        yield* startWorker(yield* openStore(server, unswept), Count, runs.layer)
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 7, millis: 0 })
          const waiting = yield* Effect.forkChild(AsyncResult.get(handle))
          yield* runs.untilBegun(1)
          yield* untilSubscribed(server, 2)
          // no client can resubscribe before the task has ended
          yield* server.command("ACL", "SETUSER", "default", "-subscribe")
          assert.strictEqual(yield* server.command("CLIENT", "KILL", "TYPE", "pubsub"), 2)
          yield* gone.open
          yield* eventually(Effect.map(AsyncResult.ready(handle), (ready) => ready))
          assert.isUndefined(waiting.pollUnsafe())
          yield* server.command("ACL", "SETUSER", "default", "+subscribe")
          const [millis, value] = yield* timed(Fiber.join(waiting))
          yield* report("completion in a gap", millis)
          assert.strictEqual(value, 7)
          assert.isBelow(millis, 4_000)
          yield* untilSubscribed(server, 2)
          const [after] = yield* timed(roundTrip(8))
          assert.isBelow(after, 1_000)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("waiters receive results without a sweep after subscribers are cut during work", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server, unswept)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server, unswept), Count, runs.layer, { concurrency: 8 })
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll(payloads(200, 30))
          const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
          for (const done of [40, 80, 120, 160, 195]) {
            yield* runs.untilEnded(done)
            yield* server.command("CLIENT", "KILL", "TYPE", "pubsub")
          }
          yield* runs.untilEnded(200)
          const [millis, values] = yield* timed(Fiber.join(waiting))
          yield* report("subscribers killed five times, after the last run", millis)
          assert.deepStrictEqual(values, numbers(200))
          assert.isBelow(millis, 4_000)
        }).pipe(Effect.provideContext(producer))
      })
    )
  })

  describe.concurrent("temporary faults", () => {
    test("tasks run while the server's scripts are flushed repeatedly", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server), Count, runs.layer, { concurrency: 8 })
        yield* Effect.gen(function* () {
          yield* Effect.forkChild(
            Effect.forever(Effect.andThen(server.command("SCRIPT", "FLUSH"), Effect.sleep("20 millis")))
          )
          const handles = yield* Count.delayAll(payloads(200, 20))
          assert.deepStrictEqual(yield* AsyncResult.all(handles), numbers(200))
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("a claim whose answer is lost to a pause is answered again, and its task runs once", {}, (server) =>
      Effect.gen(function* () {
        const producer = yield* openStore(server)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server, { callTimeout: "500 millis" }), Count, runs.layer, {
          lease: "30 seconds"
        })
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* server.command("CLIENT", "PAUSE", "3000", "ALL")
          const [millis, value] = yield* timed(roundTrip(2))
          yield* report("paused for 3 s", millis)
          assert.strictEqual(value, 2)
          assert.isBelow(millis, 3_000 + 5_000)
          assert.deepStrictEqual(runs.begun, [1, 2])
          assert.strictEqual(yield* crashesOf(server), 0)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("an enqueue fails as retryable while the server is frozen, and no run is lost", {}, (server) =>
      Effect.gen(function* () {
        const options = { callTimeout: "500 millis" } as const
        const producer = yield* openStore(server, options)
        const runs = countingHandler()
        yield* startWorker(yield* openStore(server, options), Count, runs.layer, { lease: "30 seconds" })
        yield* Effect.gen(function* () {
          const running = yield* Count.delay({ n: 1, millis: 1_000 })
          yield* runs.untilBegun(1)
          const handles = yield* Count.delayAll(payloads(5, 0), { delay: "500 millis" })
          const waiting = yield* Effect.forkChild(AsyncResult.all([running, ...handles]))
          yield* server.freeze
          yield* Effect.sleep("3 seconds")
          const failed = yield* Effect.flip(Count.delay({ n: 9, millis: 0 }))
          assert(failed._tag === "BackendError" || failed._tag === "BrokerError")
          assert.isTrue(failed.retryable)
          yield* server.thaw
          const [millis, values] = yield* timed(Fiber.join(waiting))
          yield* report("frozen for 3.5 s", millis)
          assert.deepStrictEqual(values, [1, 0, 1, 2, 3, 4])
          assert.isBelow(millis, 5_000)
          assert.strictEqual(yield* crashesOf(server), 0)
        }).pipe(Effect.provideContext(producer))
      })
    )
  })

  describe.concurrent("down or frozen servers", () => {
    test("an enqueue and a wait fail within their timeouts while the server is down", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server, { callTimeout: "1 second" })
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 1, millis: 0 })
          const waiting = yield* Effect.forkChild(
            Effect.flip(AsyncResult.get(handle, { timeout: "5 seconds" }))
          )
          const first = yield* Effect.forkChild(
            timed(Effect.flip(AsyncResult.get(handle, { timeout: "3 seconds" })))
          )
          yield* untilSubscribed(server)
          yield* server.kill
          const [enqueued, failed] = yield* timed(Effect.flip(Count.delay({ n: 2, millis: 0 })))
          yield* report("delay fails after", enqueued)
          assert(failed._tag === "BackendError" || failed._tag === "BrokerError")
          assert.isTrue(failed.retryable)
          assert.include(failed.message, "did not answer within 1s")
          assert.isBelow(enqueued, 3_000)

          const [, alsoOverdue] = yield* Fiber.join(first)
          assert.strictEqual(alsoOverdue._tag, "TimeoutError")
          const [late, overdue] = yield* timed(
            Effect.flip(AsyncResult.get(Count.result("other"), { timeout: "2 seconds" }))
          )
          yield* report("get of 2 s fails after", late)
          assert(overdue._tag === "TimeoutError")
          assert.include(overdue.message, "did not answer within 1s")
          assert.isBelow(late, 5_000)
          assert.strictEqual((yield* Fiber.join(waiting))._tag, "TimeoutError")
        }).pipe(Effect.provideContext(store))
      })
    )

    const testStop = (name: string, makeUnavailable: (server: Server) => Effect.Effect<void>) =>
      test(`a worker stops in time while the server is ${name}`, {}, (server) =>
        Effect.gen(function* () {
          const options = { callTimeout: "1 second" } as const
          const producer = yield* openStore(server)
          const store = yield* openStore(server, options)
          const runs = countingHandler()
          const worker = yield* Scope.make()
          yield* startWorker(store, Count, runs.layer, {
            drainTimeout: "1 second",
            lease: "3 seconds"
          }).pipe(Scope.provide(worker))
          yield* Effect.gen(function* () {
            const handle = yield* Count.delay({ n: 1, millis: 600_000 })
            yield* runs.untilBegun(1)
            yield* makeUnavailable(server)
            yield* Effect.sleep("2 seconds")
            const [millis] = yield* timed(Scope.close(worker, Exit.void))
            yield* report(`stopped while the server is ${name}`, millis)
            assert.isBelow(millis, 1_000 + 6_000)
            yield* runs.untilInterrupted
            yield* Effect.andThen(server.thaw, server.start)
            yield* AsyncResult.state(handle)
          }).pipe(Effect.timeout(Duration.seconds(25)), Effect.provideContext(producer))
        })
      )
    testStop("down", (server) => server.kill)
    testStop("frozen", (server) => server.freeze)
  })
})
