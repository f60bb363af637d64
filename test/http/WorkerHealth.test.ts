/** `WorkerHealth.layer`: real requests to workers whose time is that of `TestClock`. */
import { assert, describe, it } from "@effect/vitest"
import { Task, Worker } from "chicory"
import { WorkerHealth } from "chicory/http"
import { Context, Effect, Exit, Fiber, Latch, Layer, Scope } from "effect"
import * as MemoryFixture from "../support/memoryFixture.ts"
import { advance } from "../support/memoryFixture.ts"
import { freePort, PORTS } from "../support/ownServers.ts"
import { fail, pass, probe, send } from "./probing.ts"

const Slow = Task.make("slow")

/** A store that may lose hints, so that a worker claims every second; `answering` stands before each claim and heartbeat. */
const makeStore = (answering: Effect.Effect<void> = Effect.void) =>
  MemoryFixture.make({
    broker: (driver) => ({
      capabilities: { ...driver.capabilities, reliableHints: false },
      claim: (claim) => Effect.andThen(answering, driver.claim(claim))
    }),
    backend: (driver) => ({
      capabilities: { ...driver.capabilities, reliableHints: false },
      heartbeat: (...args) => Effect.andThen(answering, driver.heartbeat(...args))
    })
  })

const workerLayer = (store: MemoryFixture.MemoryFixture) =>
  Worker.layer([Slow], { drainTimeout: "20 seconds" }).pipe(
    Layer.provide(Slow.toLayer(() => Effect.sleep("10 seconds"))),
    Layer.provide(store.layer)
  )

describe("WorkerHealth.layer", () => {
  it.effect("answers for a store that goes away and comes back, and stays live", () =>
    Effect.gen(function* () {
      const connected = yield* Latch.make(true)
      const port = yield* freePort(PORTS.probes)
      const store = yield* makeStore(connected.await)
      yield* Layer.build(workerLayer(store).pipe(WorkerHealth.layer({ port })))
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
      yield* connected.close
      yield* advance("9 seconds")
      assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
      yield* advance("2 seconds")
      assert.deepStrictEqual(yield* probe(port), { live: pass("BrokerAway"), ready: fail("BrokerAway") })
      yield* advance("1 hour")
      assert.deepStrictEqual(yield* probe(port), { live: pass("BrokerAway"), ready: fail("BrokerAway") })
      yield* connected.open
      yield* advance("1 second")
      assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
    })
  )

  it.effect("answers through the drain, and no longer when the worker has stopped", () =>
    Effect.gen(function* () {
      const port = yield* freePort(PORTS.probes)
      const store = yield* makeStore()
      const scope = yield* Scope.make()
      const layer = workerLayer(store).pipe(WorkerHealth.layer({ port }))
      const worker = Context.get(yield* Layer.buildWithScope(layer, scope), Worker.Worker)
      yield* Effect.provideContext(Slow.delay(), store.context)
      yield* advance("2 seconds")
      const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
      for (let second = 0; second < 8; second++) {
        assert.strictEqual((yield* worker.stats).running, 1)
        assert.deepStrictEqual(yield* probe(port), { live: pass("Draining"), ready: fail("Draining") })
        yield* advance("1 second")
      }
      yield* advance("1 second")
      yield* Fiber.join(stopping)
      assert.include(String(yield* Effect.flip(send(port, "/live"))), "ECONNREFUSED")
      assert.strictEqual((yield* worker.stats).succeeded, 1)
    })
  )

  it.effect("answers before the layer is built", () =>
    Effect.gen(function* () {
      const opened = yield* Latch.make(false)
      const port = yield* freePort(PORTS.probes)
      const store = yield* makeStore()
      const slowStore = Layer.unwrap(Effect.as(opened.await, store.layer))
      const layer = Worker.layer([Slow]).pipe(
        Layer.provide(Slow.toLayer(() => Effect.void)),
        Layer.provide(slowStore),
        WorkerHealth.layer({ port })
      )
      yield* Effect.forkScoped(Effect.andThen(Layer.build(layer), Effect.never))
      const answers = yield* Effect.retry(probe(port), { while: () => true })
      assert.deepStrictEqual(answers, { live: pass("Starting"), ready: fail("Starting") })
      yield* opened.open
      yield* MemoryFixture.flush
      assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
    })
  )

  it.effect("answers with the worst of several workers", () =>
    Effect.gen(function* () {
      const connected = yield* Latch.make(true)
      const port = yield* freePort(PORTS.probes)
      const workers = Layer.mergeAll(
        workerLayer(yield* makeStore(connected.await)),
        workerLayer(yield* makeStore())
      )
      yield* Layer.build(workers.pipe(WorkerHealth.layer({ port })))
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
      yield* connected.close
      yield* advance("11 seconds")
      assert.deepStrictEqual(yield* probe(port), { live: pass("BrokerAway"), ready: fail("BrokerAway") })
      yield* connected.open
      yield* advance("1 second")
      assert.deepStrictEqual(yield* probe(port), { live: pass(), ready: pass() })
    })
  )

  it.effect("answers around other probes of the same workers", () =>
    Effect.gen(function* () {
      const [inner, outer] = [yield* freePort(PORTS.probes), yield* freePort(PORTS.probes)]
      const workers = workerLayer(yield* makeStore())
      yield* Layer.build(
        workers.pipe(WorkerHealth.layer({ port: inner }), WorkerHealth.layer({ port: outer }))
      )
      yield* advance("5 seconds")
      assert.deepStrictEqual(yield* probe(inner), { live: pass(), ready: pass() })
      assert.deepStrictEqual(yield* probe(outer), { live: pass(), ready: pass() })
    })
  )

  it.effect("fails before the workers start where the port is in use, and says what to do", () =>
    Effect.gen(function* () {
      const port = yield* freePort(PORTS.probes)
      const store = yield* makeStore()
      const layer = workerLayer(store).pipe(WorkerHealth.layer({ port }))
      yield* Layer.build(layer)
      yield* MemoryFixture.flush
      yield* store.clearCalls
      const other = workerLayer(store).pipe(WorkerHealth.layer({ port }))
      const error = yield* Effect.flip(Layer.build(other))
      assert.instanceOf(error, WorkerHealth.ListenError)
      assert.deepInclude(error, { _tag: "ListenError", port, code: "EADDRINUSE" })
      assert.strictEqual(
        error.message,
        `Failed to listen on port ${port} for probes: another process uses the port. End that process, or give ` +
          "WorkerHealth.layer a port of its own for each process of a machine"
      )
      assert.strictEqual(store.count("heartbeat"), 0)
    })
  )

  it.effect("fails for an address that the machine does not have", () =>
    Effect.gen(function* () {
      const port = yield* freePort(PORTS.probes)
      const layer = workerLayer(yield* makeStore()).pipe(WorkerHealth.layer({ port, host: "192.0.2.1" }))
      const error = yield* Effect.flip(Layer.build(layer))
      assert.include(error.message, `port ${port} of 192.0.2.1 for probes: the machine has no such address`)
    })
  )

  it.effect("dies of a port out of range", () =>
    Effect.gen(function* () {
      const layer = workerLayer(yield* makeStore()).pipe(WorkerHealth.layer({ port: 65_536 }))
      const exit = yield* Effect.exit(Layer.build(layer))
      assert.include(String(exit), "WorkerHealth.layer: port must be a whole number from 0 to 65535")
    })
  )
})
