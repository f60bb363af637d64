/** `Worker.health`: when liveness and readiness turn, by the clock. */
import { assert, describe, it } from "@effect/vitest"
import { MemoryStore, Worker } from "chicory"
import { Cause, Clock, Context, Duration, Effect, Exit, Latch, Layer, Logger, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Outages } from "../../../src/internal/driver/Outages.ts"
import { WorkerHealth } from "../../../src/internal/worker/health.ts"
import * as MemoryFixture from "../../support/memoryFixture.ts"
import { advance } from "../../support/memoryFixture.ts"
import { Work } from "./workerFixture.ts"

type Options = MemoryFixture.Options & {
  readonly worker?: Worker.Options
  readonly handler?: Effect.Effect<number>
}

/** A worker over a store that may lose hints, so that it claims every second and sends heartbeats every 10. */
const make = Effect.fnUntraced(function* ({ handler = Effect.never, worker, ...options }: Options = {}) {
  const fixture = yield* MemoryFixture.make({
    ...options,
    broker: (driver) => ({
      capabilities: { ...driver.capabilities, reliableHints: false },
      ...options.broker?.(driver)
    }),
    backend: (driver) => ({
      capabilities: { ...driver.capabilities, reliableHints: false },
      ...options.backend?.(driver)
    })
  })
  const scope = yield* Scope.fork(yield* Scope.Scope)
  const layer = Worker.layer([Work], { drainTimeout: 0, ...worker }).pipe(
    Layer.provide(Work.toLayer(() => handler)),
    Layer.provide(fixture.layer)
  )
  const service = Context.get(yield* Layer.buildWithScope(layer, scope), Worker.Worker)
  yield* MemoryFixture.flush
  const enqueue = Effect.provideContext(Effect.asVoid(Work.delay({ n: 1 })), fixture.context)
  return { fixture, scope, enqueue, health: service.health, service }
})

const READY: Worker.Health = { live: true, ready: true, code: "Ready" }
const unready = (code: Worker.HealthCode): Worker.Health => ({ live: true, ready: false, code })
const dead = (code: Worker.HealthCode): Worker.Health => ({ live: false, ready: false, code })

/** Reads the health once a second, and returns after how many seconds it has that code. */
const secondsUntil = Effect.fnUntraced(function* (health: Effect.Effect<Worker.Health>, code: string) {
  for (let second = 0; second <= 300; second++) {
    if ((yield* health).code === code) return second
    yield* advance("1 second")
  }
  return Infinity
})

/** An effect that does not end while the store is cut off. */
const cutOff = () => {
  const connected = Latch.makeUnsafe(true)
  return {
    cut: Effect.sync(() => connected.closeUnsafe()),
    reconnect: Effect.sync(() => connected.openUnsafe()),
    untilConnected: connected.await,
    failWhileCut: Effect.suspend(() => (connected.isOpen() ? Effect.void : Effect.fail("cut off")))
  }
}

describe("a healthy worker", () => {
  it.effect("is live and ready on the memory store, idle for a month", () =>
    Effect.gen(function* () {
      const { health } = yield* Worker.Worker
      yield* advance("10 seconds")
      yield* TestClock.adjust("30 days")
      assert.deepStrictEqual(yield* health, READY)
    }).pipe(
      Effect.provide(
        Worker.layer([Work], { drainTimeout: 0 }).pipe(
          Layer.provide(Work.toLayer(() => Effect.never)),
          Layer.provide(MemoryStore.layer())
        )
      )
    )
  )

  it.effect("is live and ready while it is idle and claims every second", () =>
    Effect.gen(function* () {
      const { health } = yield* make()
      for (let second = 0; second < 300; second++) {
        assert.deepStrictEqual(yield* health, READY)
        yield* advance("1 second")
      }
    })
  )

  it.effect("is live and ready while long handlers take all of its slots", () =>
    Effect.gen(function* () {
      const { enqueue, fixture, health } = yield* make({ worker: { concurrency: 1 } })
      yield* enqueue
      yield* advance("2 seconds")
      const claims = fixture.count("claim")
      yield* advance("10 minutes")
      assert.strictEqual(fixture.count("claim"), claims)
      assert.deepStrictEqual(yield* health, READY)
    })
  )

  it.effect("is not ready before the store has answered its first claim", () =>
    Effect.gen(function* () {
      const store = cutOff()
      yield* store.cut
      const { health } = yield* make({
        broker: (driver) => ({ claim: (claim) => Effect.andThen(store.untilConnected, driver.claim(claim)) })
      })
      assert.deepStrictEqual(yield* health, unready("Starting"))
      yield* store.reconnect
      yield* MemoryFixture.flush
      assert.deepStrictEqual(yield* health, READY)
    })
  )
})

describe("a worker whose backend has not answered yet", () => {
  it.effect("is not ready, although the broker has answered", () =>
    Effect.gen(function* () {
      const store = cutOff()
      yield* store.cut
      const { fixture, health } = yield* make({
        backend: (driver) => ({
          heartbeat: (...args) => Effect.andThen(store.failWhileCut, driver.heartbeat(...args))
        })
      })
      yield* advance("6 seconds")
      assert.isAbove(fixture.count("claim"), 0)
      assert.deepStrictEqual(yield* health, unready("Starting"))
      assert.strictEqual(yield* secondsUntil(health, "BackendAway"), 14)
      yield* store.reconnect
      assert.isAtMost(yield* secondsUntil(health, "Ready"), 10)
    })
  )

  it("is ready without a backend, to which it sends no heartbeats", () => {
    const code = (hasBackend: boolean) => {
      const health = new WorkerHealth(10_000, hasBackend, new Outages("test"))
      health.onClaimSent(0n)
      health.onClaimAnswered()
      return health.read(1n).code
    }
    assert.deepStrictEqual([code(false), code(true)], ["Ready", "Starting"])
  })
})

describe("a store that is away", () => {
  /** How a store answers while it is cut off. */
  const outages = {
    "that fails": (store: ReturnType<typeof cutOff>) => store.failWhileCut,
    "that never answers": (store: ReturnType<typeof cutOff>) => store.untilConnected
  }

  for (const [how, answer] of Object.entries(outages)) {
    it.effect(`is found after 10 seconds by a broker ${how}, and the worker stays live`, () =>
      Effect.gen(function* () {
        const store = cutOff()
        const { health } = yield* make({
          broker: (driver) => ({ claim: (claim) => Effect.andThen(answer(store), driver.claim(claim)) })
        })
        yield* advance("5500 millis")
        yield* store.cut
        // the next claim is sent within a second
        assert.strictEqual(yield* secondsUntil(health, "BrokerAway"), 11)
        yield* advance("5 minutes")
        assert.deepStrictEqual(yield* health, unready("BrokerAway"))
        yield* store.reconnect
        assert.isAtMost(yield* secondsUntil(health, "Ready"), 2)
      })
    )

    it.effect(`is found 10 seconds after the next heartbeat is due by a backend ${how}`, () =>
      Effect.gen(function* () {
        const store = cutOff()
        const { health } = yield* make({
          backend: (driver) => ({
            heartbeat: (...args) => Effect.andThen(answer(store), driver.heartbeat(...args))
          })
        })
        yield* advance("5500 millis")
        yield* store.cut
        // the next heartbeat is sent 10 seconds after the start, and one more may be missed
        assert.strictEqual(yield* secondsUntil(health, "BackendAway"), 25)
        yield* advance("5 minutes")
        assert.deepStrictEqual(yield* health, unready("BackendAway"))
        yield* store.reconnect
        assert.isAtMost(yield* secondsUntil(health, "Ready"), 10)
      })
    )
  }

  it.effect("is not found by a single heartbeat that fails", () =>
    Effect.gen(function* () {
      let sent = 0
      const { health } = yield* make({
        backend: (driver) => ({
          heartbeat: (...args) => (++sent === 2 ? Effect.fail("cut off") : driver.heartbeat(...args))
        })
      })
      assert.strictEqual(yield* secondsUntil(health, "BackendAway"), Infinity)
    })
  )
})

describe("a worker that stops", () => {
  it.effect("is live and not ready through the drain, and afterwards", () =>
    Effect.gen(function* () {
      const { enqueue, health, scope, service } = yield* make({
        worker: { drainTimeout: "20 seconds" },
        handler: Effect.as(Effect.sleep("10 seconds"), 1)
      })
      yield* enqueue
      yield* advance("2 seconds")
      const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
      for (let second = 0; second < 8; second++) {
        assert.deepStrictEqual(yield* health, unready("Draining"))
        assert.strictEqual((yield* service.stats).running, 1)
        yield* advance("1 second")
      }
      yield* advance("1 second")
      assert.deepStrictEqual(MemoryFixture.exitOf(stopping), Exit.void)
      yield* advance("1 hour")
      assert.deepStrictEqual(yield* health, unready("Draining"))
    })
  )
})

describe("a worker that does not work", () => {
  /** Runs a test with a clock whose sleeps of one second, those between claims, are replaced once `replaced` is set. */
  const withSleep = <A, E, R>(
    sleep: Effect.Effect<never>,
    test: (replace: Effect.Effect<void>) => Effect.Effect<A, E, R>
  ) =>
    Clock.clockWith((clock) => {
      let isReplaced = false
      const replacing: Clock.Clock = Object.assign(Object.create(clock), {
        sleep: (duration: Duration.Duration) =>
          Effect.suspend(() =>
            isReplaced && Duration.toMillis(duration) === 1000 ? sleep : clock.sleep(duration)
          )
      })
      return Effect.provideService(
        test(
          Effect.sync(() => {
            isReplaced = true
          })
        ),
        Clock.Clock,
        replacing
      )
    })

  it.effect("is not live a minute after its claim loop went round last", () =>
    withSleep(Effect.never, (replace) =>
      Effect.gen(function* () {
        const { health } = yield* make()
        yield* advance("5500 millis")
        yield* replace
        // it went round at 6 seconds
        assert.strictEqual(yield* secondsUntil(health, "Stuck"), 61)
        assert.deepStrictEqual(yield* health, dead("Stuck"))
      })
    )
  )

  it.effect("is not live once one of its loops has ended, which is logged", () =>
    withSleep(Effect.die("no timer"), (replace) =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
          if (logLevel !== "Info") lines.push(`${logLevel}: ${String(message)}`)
        })
        yield* Effect.gen(function* () {
          const { health, scope } = yield* make()
          yield* advance("5 seconds")
          assert.deepStrictEqual(yield* health, READY)
          yield* replace
          yield* advance("2 seconds")
          assert.deepStrictEqual(yield* health, dead("LoopEnded"))
          yield* Scope.close(scope, Exit.void)
        }).pipe(Effect.provide(Logger.layer([logger])))
        assert.deepStrictEqual(lines, [
          "Error: A loop of the worker has ended; the process has to be restarted"
        ])
      })
    )
  )

  it.effect(
    "is not ready while a connection that it holds open has been lost for 10 seconds, whatever is answered",
    () =>
      Effect.gen(function* () {
        const broker = new Outages("rabbitmq")
        const health = new WorkerHealth(10_000, false, broker)
        const read = Clock.monotonicTimeNanos.pipe(
          Effect.map((now) => {
            health.onClaimSent(now)
            health.onClaimAnswered()
            return health.read(now)
          })
        )
        yield* broker.connectionLost(Cause.fail("gone"))
        yield* broker.connectionLost(Cause.fail("gone"))
        yield* advance("9 seconds")
        assert.deepStrictEqual(yield* read, READY)
        yield* advance("1 second")
        assert.deepStrictEqual(yield* read, unready("BrokerAway"))
        yield* broker.connectionRestored
        assert.deepStrictEqual(yield* read, unready("BrokerAway"))
        yield* broker.connectionRestored
        assert.deepStrictEqual(yield* read, READY)
      }).pipe(Effect.provide(Logger.layer([])))
  )

  it("is not live where slots are free, no claim is on its way, and none is sent", () => {
    const second = 1_000_000_000n
    const health = new WorkerHealth(10_000, false, new Outages("test"))
    health.onTick(0n, true)
    health.onClaimSent(0n)
    health.onClaimAnswered()
    for (let now = 1n; now <= 60n; now++) health.onTick(now * second, true)
    assert.deepStrictEqual(health.read(60n * second), READY)
    health.onTick(61n * second, true)
    assert.deepStrictEqual(health.read(61n * second), dead("Stuck"))
    // whatever it waited for, it goes round again
    health.onTick(62n * second, false)
    assert.deepStrictEqual(health.read(62n * second), READY)
  })
})
