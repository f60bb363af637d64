/** Guarantee 9 on RabbitMQ: a server that stops, closes connections, blocks publishers, freezes, or loses its data. */
import { assert } from "@effect/vitest"
import { AsyncResult, Broker } from "chicory"
import { Context, Deferred, Effect, Exit, Fiber, Latch, Scope, Stream } from "effect"
import { makeNetwork } from "../support/network.ts"
import type { ServerError } from "../support/ownServers.ts"
import {
  Count,
  countingHandler,
  eventually,
  roundTrip,
  type Store,
  startWorker,
  timed,
  within30Seconds
} from "../support/storeFixture.ts"
import { closing } from "./closing.ts"
import { describeWithOwnRabbit, type OwnServer } from "./ownServer.ts"
import { withChannel } from "./server.ts"
import {
  untilDrained,
  retryUntilAccepted,
  countMessages,
  untilEmpty,
  onOneServer,
  removeQueue,
  retryableErrorOf,
  warningsOf
} from "./storeFixture.ts"

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

const payloads = (count: number, millis: number) => numbers(count).map((n) => ({ n, millis }))

/** Prints a measurement if `CHICORY_FIGURES` is set. */
const report = (name: string, millis: number) =>
  Effect.sync(() => process.env["CHICORY_FIGURES"] && console.log(`${name}: ${Math.round(millis)} ms`))

/** Enqueues a delayed task, and waits for its result. */
const roundTripLater = (n: number) =>
  Effect.flatMap(Count.delay({ n, millis: 0 }, { delay: "100 millis" }), (handle) => AsyncResult.get(handle))

/** A short lease: a message that is redelivered while its task runs is put back for the rest of the lease. */
const renewed = { lease: "2 seconds" } as const

/** Options of a broker whose calls fail fast. */
const quick = { callTimeout: "700 millis" } as const

/** Starts a worker. Returns an effect that stops it, and returns how many milliseconds that took. */
const startStoppable = Effect.fnUntraced(function* (...args: Parameters<typeof startWorker<typeof Count>>) {
  const scope = yield* Scope.make()
  yield* Scope.provide(startWorker(...args), scope)
  return Effect.map(timed(Scope.close(scope, Exit.void)), ([millis]) => millis)
})

describeWithOwnRabbit("guarantee 9: outages of RabbitMQ", () => {
  onOneServer("stopped servers", {}, (test) => {
    const testRestart = (how: string, stop: (server: OwnServer) => Effect.Effect<void, ServerError>) =>
      test(`a server that is ${how} and started again loses no confirmed task, and no task runs twice`, (server, location) =>
        Effect.gen(function* () {
          const producer = yield* location.open()
          const workers = yield* location.open()
          const runs = countingHandler()
          yield* startWorker(workers, Count, runs.layer, { concurrency: 8, ...renewed })
          yield* Effect.gen(function* () {
            // declares the queues and settles them: a crash loses queues that were declared shortly before
            assert.strictEqual(yield* roundTrip(1_000), 1_000)
            const later = yield* Count.delay({ n: 121, millis: 0 }, { delay: "4 seconds" })
            yield* server.settle

            const running = yield* Count.delay({ n: 120, millis: 1_500 })
            const handles = yield* Count.delayAll(payloads(120, 30))
            const waiting = yield* Effect.forkChild(AsyncResult.all([...handles, running, later]))
            yield* runs.untilEnded(30)
            yield* stop(server)
            const meanwhile = Count.delay({ n: 122, millis: 0 }, { id: `meanwhile, ${how}` })
            const called = yield* Effect.forkChild(Effect.exit(meanwhile))
            yield* within30Seconds(() => "the start of the server", server.start)
            yield* within30Seconds(() => "the enqueue without a server", Fiber.join(called))
            const after = yield* within30Seconds(() => "an enqueue after it", retryUntilAccepted(meanwhile))
            const [millis, values] = yield* within30Seconds(
              () =>
                `tasks that did not run: ${numbers(122)
                  .filter((n) => !runs.ended.includes(n))
                  .join()}`,
              timed(Fiber.join(waiting))
            )
            yield* report(`${how}, 90 tasks left`, millis)
            assert.deepStrictEqual(values, numbers(122))
            assert.isBelow(millis, 15_000)
            assert.strictEqual(yield* AsyncResult.get(after), 122)
            yield* within30Seconds(() => "the queue to be empty", untilDrained(producer, workers))
            assert.sameMembers(runs.begun, [1_000, ...numbers(123)])
            assert.strictEqual(yield* location.crashes, 0)
            yield* untilEmpty(server, location)
            const [again] = yield* timed(roundTrip(1_002))
            assert.isBelow(again, 1_000)
          }).pipe(Effect.provideContext(producer))
        }))
    testRestart("stopped", (server) => server.stop)
    testRestart("killed", (server) => server.kill)

    test("an enqueue fails in time and a worker stops in time while the server is stopped", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open(quick)
        const runs = countingHandler()
        const store = yield* location.open(quick)
        const end = yield* startStoppable(store, Count, runs.layer, { drainTimeout: "500 millis" })
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 1, millis: 600_000 })
          yield* runs.untilBegun(1)
          yield* server.stop
          const [millis, error] = yield* timed(retryableErrorOf(Count.delay({ n: 2, millis: 0 })))
          yield* report("delay without a server", millis)
          assert.isBelow(millis, 2_500)
          assert.notInclude(error.message, "guest")
          const ended = yield* end
          yield* report("a worker stopped without a server", ended)
          assert.isBelow(ended, 500 + 4_000)
          yield* runs.untilInterrupted
          assert.strictEqual(yield* AsyncResult.state(handle), "PENDING")
        }).pipe(Effect.provideContext(producer))
      }))

    test("a worker that starts while the server is stopped stops in time", (server, location) =>
      Effect.gen(function* () {
        const store = yield* location.open(quick)
        yield* server.stop
        yield* retryableErrorOf(Effect.provideContext(Count.delay({ n: 1, millis: 0 }), store))
        const end = yield* startStoppable(store, Count, countingHandler().layer)
        const stopping = yield* Effect.forkChild(end)
        const ended = yield* Effect.timeoutOption(Fiber.join(stopping), "5 seconds")
        yield* server.start
        assert.strictEqual(ended._tag, "Some", "it stops before the server is started again")
      }))

    test("tasks that are enqueued after the server lost all data run, with and without a delay", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        const runs = countingHandler()
        yield* startWorker(yield* location.open(), Count, runs.layer, { concurrency: 4 })
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* roundTrip(1), 1)
          assert.strictEqual(yield* roundTripLater(2), 2)
          yield* server.restartEmpty
          const enqueue = (n: number, delay: number) =>
            Effect.flatMap(retryUntilAccepted(Count.delay({ n, millis: 0 }, { delay })), (handle) =>
              AsyncResult.get(handle)
            )
          assert.strictEqual(yield* enqueue(3, 0), 3)
          assert.strictEqual(yield* enqueue(4, 100), 4)
        }).pipe(Effect.provideContext(producer))
      }))
  })

  onOneServer("closed connections and removed queues", {}, (test) => {
    test("no task is lost and none runs twice if the server closes all connections during work", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        const workers = yield* location.open()
        const cut = yield* Deferred.make<void>()
        const runs = countingHandler((n) => (n < 100 ? Effect.void : Deferred.await(cut)))
        yield* startWorker(workers, Count, runs.layer, { concurrency: 8, ...renewed })
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll(payloads(160, 200))
          const later = yield* Count.delay({ n: 160, millis: 0 }, { delay: "2 seconds" })
          const waiting = yield* Effect.forkChild(AsyncResult.all([...handles, later]))
          for (const done of [8, 60]) {
            yield* runs.untilEnded(done)
            yield* server.closeConnections("a test")
          }
          yield* Deferred.succeed(cut, undefined)
          const after = yield* retryUntilAccepted(Count.delay({ n: 161, millis: 0 }, { id: "cut" }))
          const [millis, values] = yield* timed(Fiber.join(waiting))
          yield* report("cut twice, the rest", millis)
          assert.deepStrictEqual(values, numbers(161))
          assert.strictEqual(yield* AsyncResult.get(after), 161)
          yield* untilDrained(producer, workers)
          assert.sameMembers(runs.begun, numbers(162))
          assert.strictEqual(yield* location.crashes, 0)
          yield* untilEmpty(server, location)
        }).pipe(Effect.provideContext(producer))
      }))

    test("two connections that the server closes are one line, with its reason", (server, location) =>
      Effect.gen(function* () {
        const logged = yield* warningsOf(
          Effect.gen(function* () {
            const store = yield* location.open()
            yield* server.closeConnections("the moon is full")
            yield* retryUntilAccepted(
              Effect.provideContext(Count.delay({ n: 1, millis: 0 }, { id: "moon" }), store)
            )
          })
        )
        assert.lengthOf(logged, 1)
        assert.include(
          logged[0],
          "Failed to call the store rabbitmq; calls are repeated until it answers again"
        )
        assert.include(logged[0], "the moon is full")
      }))

    test("no other worker runs a task whose worker reconnects", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        const stores = [yield* location.open(), yield* location.open()]
        const runs = countingHandler()
        for (const store of stores) yield* startWorker(store, Count, runs.layer, { lease: "2 seconds" })
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 1, millis: 4_000 })
          yield* runs.untilBegun(1)
          yield* server.closeConnections("a test")
          assert.strictEqual(yield* AsyncResult.get(handle), 1)
          yield* untilDrained(...stores)
          assert.deepStrictEqual(runs.begun, [1])
          assert.strictEqual(yield* location.crashes, 0)
        }).pipe(Effect.provideContext(producer))
      }))

    test("connections that are cut as soon as they are ready are opened again", (server, location) =>
      Effect.gen(function* () {
        const network = yield* makeNetwork(server.url, { closingData: closing })
        const producer = yield* location.open({ url: network.url })
        yield* startWorker(yield* location.open({ url: network.url }), Count, countingHandler().layer)
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* roundTrip(1), 1)
          yield* network.cut(4)
          const handle = yield* retryUntilAccepted(Count.delay({ n: 2, millis: 0 }, { id: "cut at once" }))
          assert.strictEqual(yield* AsyncResult.get(handle), 2)
        }).pipe(Effect.timeout("30 seconds"), Effect.provideContext(producer))
      }))

    test("a task without a backend is interrupted when its connection closes, and runs again", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.openBroker()
        const workers = yield* location.openBroker()
        const running = { now: 0, most: 0 }
        const interrupted = yield* Deferred.make<void>()
        const again = yield* Deferred.make<void>()
        const handler = Count.toLayer(({ n }) =>
          Effect.gen(function* () {
            running.now++
            running.most = Math.max(running.most, running.now)
            if (yield* Deferred.isDone(interrupted)) return n
            return yield* Effect.never
          }).pipe(
            Effect.onExit((exit) => {
              running.now--
              return Deferred.done(Exit.isSuccess(exit) ? again : interrupted, Exit.void)
            })
          )
        )
        yield* startWorker(workers, Count, handler)
        yield* Effect.provideContext(Count.send({ n: 1, millis: 0 }), producer)
        yield* eventually(Effect.sync(() => running.now === 1))
        yield* server.closeConnections("a test")
        yield* Deferred.await(interrupted)
        yield* Effect.timeout(Deferred.await(again), "10 seconds")
        assert.strictEqual(running.most, 1)
        yield* untilDrained(producer, workers)
      }))

    test("a consumed queue that is removed is declared again, and later tasks run", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        const workers = yield* location.open()
        const runs = countingHandler()
        yield* startWorker(workers, Count, runs.layer)
        yield* Effect.gen(function* () {
          const running = yield* Count.delay({ n: 1, millis: 1_000 })
          yield* runs.untilBegun(1)
          yield* removeQueue(server, location.names.queue("default"))
          assert.strictEqual(yield* roundTrip(2), 2)
          assert.strictEqual(yield* AsyncResult.get(running), 1)
          const [millis] = yield* timed(roundTrip(3))
          assert.isBelow(millis, 1_000)
          assert.deepStrictEqual(runs.begun, [1, 2, 3])
          yield* untilDrained(producer, workers)
        }).pipe(Effect.provideContext(producer))
      }))

    test("delayed tasks reach a removed queue once it is declared again", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        const workers = yield* location.open()
        yield* startWorker(workers, Count, countingHandler().layer)
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* roundTripLater(1), 1)
          yield* removeQueue(server, location.names.queue("default"))
          // the worker has declared it again
          yield* eventually(
            Effect.map(
              Effect.exit(
                withChannel(server.url, (channel) => channel.checkQueue(location.names.queue("default")))
              ),
              (exit) => Exit.isSuccess(exit) && exit.value.consumerCount > 0
            )
          )
          assert.strictEqual(yield* roundTripLater(2), 2)
          yield* untilDrained(producer, workers)
        }).pipe(Effect.provideContext(producer))
      }))

    test("delay exchanges that are removed are declared again", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        yield* startWorker(yield* location.open(), Count, countingHandler().layer)
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* roundTripLater(1), 1)
          yield* withChannel(server.url, async (channel) => {
            for (const exponent of numbers(32))
              await channel.deleteExchange(location.names.delayExchange(exponent))
          })
          const handle = yield* retryUntilAccepted(
            Count.delay({ n: 2, millis: 0 }, { delay: "100 millis", id: "no way" })
          )
          assert.strictEqual(yield* AsyncResult.get(handle), 2)
        }).pipe(Effect.timeout("30 seconds"), Effect.provideContext(producer))
      }))

    test("tasks that are enqueued after the delay queues were removed run", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        yield* startWorker(yield* location.open(), Count, countingHandler().layer)
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* roundTripLater(1), 1)
          yield* withChannel(server.url, async (channel) => {
            for (const exponent of numbers(32))
              await channel.deleteQueue(location.names.delayQueue("default", exponent))
          })
          assert.strictEqual(yield* roundTripLater(2), 2)
        }).pipe(Effect.provideContext(producer))
      }))
  })

  onOneServer("servers low on memory", {}, (test) => {
    /** Raises the memory alarm until the end of the test. */
    const raiseAlarm = (server: OwnServer) =>
      Effect.acquireRelease(server.alarm, () => Effect.ignore(server.calm))

    test("queued tasks run while enqueues are blocked, until the memory alarm clears", (server, location) =>
      Effect.gen(function* () {
        const impatient = yield* location.open({ callTimeout: "500 millis" })
        const patient = yield* location.open({ callTimeout: "40 seconds" })
        const workers = yield* location.open()
        const alarmed = yield* Latch.make(false)
        const runs = countingHandler(() => alarmed.await)
        yield* startWorker(workers, Count, runs.layer, { concurrency: 1 })
        const enqueue = (store: Store, n: number) =>
          Effect.provideContext(Count.delay({ n, millis: 0 }), store)
        const handles = yield* Effect.provideContext(Count.delayAll(payloads(60, 10)), patient)
        yield* raiseAlarm(server)
        // the server reads the first publish of a connection, and then blocks the connection
        const first = yield* Effect.forkChild(enqueue(patient, 100))
        const waiting = yield* Effect.forkChild(enqueue(patient, 101))
        yield* Effect.ignore(enqueue(impatient, 102))
        const [millis, error] = yield* timed(retryableErrorOf(enqueue(impatient, 103)))
        yield* report("delay while memory is low", millis)
        assert.isBelow(millis, 1_500)
        assert.include(error.message, "within 500ms")
        yield* alarmed.open
        yield* Effect.provideContext(AsyncResult.all(handles), patient)
        assert.isUndefined(waiting.pollUnsafe())
        yield* eventually(
          Effect.map(
            countMessages(server, location),
            (messages) => messages <= runs.begun.length - runs.ended.length
          )
        )
        yield* server.calm
        const late = [yield* Fiber.join(first), yield* Fiber.join(waiting), yield* enqueue(impatient, 104)]
        const values = yield* Effect.provideContext(AsyncResult.all(late), patient)
        assert.deepStrictEqual(values, [100, 101, 104])
        yield* untilDrained(impatient, patient, workers)
        for (const n of numbers(60)) assert.strictEqual(runs.begun.filter((begun) => begun === n).length, 1)
      }))

    test("messages are counted during a memory alarm", (server, location) =>
      Effect.gen(function* () {
        const store = yield* location.open({ callTimeout: "2 seconds" })
        yield* Effect.gen(function* () {
          yield* Count.delayAll(payloads(3, 0))
          yield* raiseAlarm(server)
          for (const _ of numbers(3)) {
            const [counts] = yield* Broker.counts(["default"])
            assert.strictEqual(counts?.ready, 3)
          }
        }).pipe(Effect.provideContext(store))
      }))

    test("a worker starts and stops during a memory alarm, and its task runs again", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open(quick)
        const runs = countingHandler()
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll([
            { n: 1, millis: 0 },
            { n: 2, millis: 600_000 }
          ])
          yield* raiseAlarm(server)
          yield* Effect.ignore(Count.delay({ n: 3, millis: 0 }))
          const store = yield* location.open(quick)
          const end = yield* startStoppable(store, Count, runs.layer)
          yield* runs.untilBegun(2)
          assert.strictEqual(yield* AsyncResult.get(handles[0]!), 1)
          const ended = yield* end
          yield* report("a worker stopped while memory is low", ended)
          assert.isBelow(ended, 4_000)
          assert.strictEqual(yield* AsyncResult.state(handles[1]!), "PENDING")
          yield* server.calm
          yield* startWorker(
            yield* location.open(),
            Count,
            Count.toLayer(({ n }) => Effect.succeed(n))
          )
          assert.strictEqual(yield* AsyncResult.get(handles[1]!), 2)
        }).pipe(Effect.provideContext(producer))
      }))
  })

  onOneServer("frozen servers", {}, (test) => {
    test("enqueues fail in time while the server is frozen, and work continues after it", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open(quick)
        const workers = yield* location.open(quick)
        const runs = countingHandler()
        yield* startWorker(workers, Count, runs.layer, { concurrency: 4, ...renewed })
        yield* Effect.gen(function* () {
          const running = yield* Count.delay({ n: 40, millis: 2_000 })
          const handles = yield* Count.delayAll(payloads(40, 100))
          const waiting = yield* Effect.forkChild(AsyncResult.all([...handles, running]))
          yield* runs.untilEnded(8)
          yield* server.freeze
          const [millis, error] = yield* timed(retryableErrorOf(Count.delay({ n: 50, millis: 0 })))
          yield* report("delay while frozen", millis)
          assert.isBelow(millis, 2_500)
          assert.include(error.message, "within 700ms")
          // acks do not reach the server meanwhile
          yield* Effect.sleep("2 seconds")
          yield* server.thaw
          const [left, values] = yield* timed(Fiber.join(waiting))
          yield* report("after the thaw", left)
          assert.deepStrictEqual(values, numbers(41))
          assert.isBelow(left, 8_000)
          const [again] = yield* timed(roundTrip(51))
          assert.isBelow(again, 2_000)
          yield* untilDrained(producer, workers)
          // the effect of this enqueue is unknown
          assert.sameMembers(
            runs.begun.filter((n) => n !== 50),
            [...numbers(41), 51]
          )
          assert.strictEqual(yield* location.crashes, 0)
        }).pipe(Effect.provideContext(producer))
      }))

    test("work continues over new connections after a freeze that exceeds the heartbeat timeout", (server, location) =>
      Effect.gen(function* () {
        const url = `${server.url}?heartbeat=1`
        const producer = yield* location.open({ url, ...quick })
        const workers = yield* location.open({ url, ...quick })
        const runs = countingHandler()
        yield* startWorker(workers, Count, runs.layer, { concurrency: 4, ...renewed })
        yield* Effect.gen(function* () {
          const handles = yield* Count.delayAll(payloads(20, 100))
          const waiting = yield* Effect.forkChild(AsyncResult.all(handles))
          yield* runs.untilEnded(4)
          yield* server.freeze
          yield* Effect.sleep("5 seconds")
          yield* server.thaw
          const [left, values] = yield* timed(Fiber.join(waiting))
          yield* report("after a long freeze", left)
          assert.deepStrictEqual(values, numbers(20))
          yield* untilDrained(producer, workers)
          assert.sameMembers(runs.begun, numbers(20))
          assert.strictEqual(yield* location.crashes, 0)
          const [again] = yield* timed(roundTrip(51))
          assert.isBelow(again, 1_000)
        }).pipe(Effect.provideContext(producer))
      }))

    test("a worker stops in time while the server is frozen, and its task runs again", (server, location) =>
      Effect.gen(function* () {
        const producer = yield* location.open()
        const runs = countingHandler()
        const store = yield* location.open(quick)
        const end = yield* startStoppable(store, Count, runs.layer, { drainTimeout: "500 millis" })
        yield* Effect.gen(function* () {
          const handle = yield* Count.delay({ n: 1, millis: 600_000 })
          yield* runs.untilBegun(1)
          yield* server.freeze
          const ended = yield* end
          yield* report("a worker stopped while frozen", ended)
          assert.isBelow(ended, 500 + 4_000)
          yield* runs.untilInterrupted
          yield* server.thaw
          yield* startWorker(
            yield* location.open(),
            Count,
            Count.toLayer(({ n }) => Effect.succeed(n))
          )
          assert.strictEqual(yield* AsyncResult.get(handle), 1)
        }).pipe(Effect.provideContext(producer))
      }))

    test("a worker that starts while the server is frozen stops in time", (server, location) =>
      Effect.gen(function* () {
        const store = yield* location.open(quick)
        yield* server.freeze
        const end = yield* startStoppable(store, Count, countingHandler().layer)
        yield* Effect.sleep("200 millis")
        const stopping = yield* Effect.forkChild(end)
        const ended = yield* Effect.timeoutOption(Fiber.join(stopping), "5 seconds")
        yield* server.thaw
        assert.strictEqual(ended._tag, "Some", "it stops before the server is started again")
      }))

    test("a subscriber stops in time while the server is frozen", (server, location) =>
      Effect.gen(function* () {
        const broker = Context.get(yield* location.open(quick), Broker.Broker)
        yield* server.freeze
        const listening = yield* Effect.forkChild(Stream.runDrain(broker.ready(["default"], 1)))
        yield* Effect.sleep("200 millis")
        const stopped = yield* Effect.timeoutOption(Fiber.interrupt(listening), "5 seconds")
        yield* server.thaw
        assert.strictEqual(stopped._tag, "Some", "it stops before the server is started again")
      }))

    test("a process closes its worker and connections in time while the server is frozen", (server, location) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const store = yield* Scope.provide(location.open(quick), scope)
        const runs = countingHandler()
        yield* Scope.provide(startWorker(store, Count, runs.layer), scope)
        yield* Effect.provideContext(Count.delay({ n: 1, millis: 600_000 }), store)
        yield* runs.untilBegun(1)
        yield* server.freeze
        const [millis] = yield* timed(Scope.close(scope, Exit.void))
        yield* report("a process ended while frozen", millis)
        assert.isBelow(millis, 7_000)
      }))
  })
})
