/** The cost and latency of waiting: workers for tasks, and callers for results. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { Context, Duration, Effect, Fiber, Latch, Queue, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { clientOf, openStore, testWithServer as test, untilSubscribed } from "./storeFixture.ts"

/** No sweep happens within a test. */
const unswept = { sweepInterval: "60 seconds" } as const

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1]!

/** Returns how many scripts clients call per second, measured over a while. */
const callRate = (server: Server, seconds: number) => {
  const calls = Effect.map(server.command("INFO", "commandstats"), (info) =>
    Number(/cmdstat_evalsha:calls=(\d+)/.exec(String(info))?.[1] ?? 0)
  )
  return Effect.gen(function* () {
    const before = yield* calls
    yield* Effect.sleep(Duration.seconds(seconds))
    return ((yield* calls) - before) / seconds
  })
}

/** Starts a worker, and waits until it is registered as idle. */
const idleWorker = Effect.fnUntraced(function* (server: Server, hold?: () => Effect.Effect<void>) {
  const handler = countingHandler(hold)
  yield* startWorker(yield* openStore(server, unswept), Count, handler.layer)
  yield* untilSubscribed(server)
  yield* eventually(
    Effect.map(server.command("ZCARD", "{chicory:0}:queue:default:idle"), (idle) => Number(idle) === 1)
  )
  return handler
})

/** Collects what is published to the only process that is subscribed. Returns those of a kind since the last time. */
const collectMessages = Effect.fnUntraced(function* (server: Server) {
  const client = Context.get(yield* clientOf(server.url), Redis.Redis)
  const [channel] = (yield* server.command("PUBSUB", "CHANNELS", "*:process:*")) as ReadonlyArray<string>
  const queue = yield* client.subscribe(channel!)
  return Effect.fnUntraced(function* (kind: string) {
    const mark = crypto.randomUUID()
    yield* server.command("PUBLISH", channel!, mark)
    const found: Array<string> = []
    for (;;) {
      const { message } = yield* Queue.take(queue)
      if (message === mark) break
      if (message.startsWith(`["${kind}"`)) found.push(message)
    }
    return found
  })
})

describeWithServers("waiting on Redis", () => {
  describe.concurrent("workers", () => {
    test("an idle worker makes fewer than 5 calls a second", {}, (server) =>
      Effect.gen(function* () {
        yield* idleWorker(server)
        assert.isBelow(yield* callRate(server, 3), 5)
      })
    )

    test("an idle worker starts a new task at once", {}, (server) =>
      Effect.gen(function* () {
        yield* idleWorker(server)
        const store = yield* openStore(server, unswept)
        const times = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], (n) =>
          Effect.map(timed(Effect.provideContext(roundTrip(n), store)), ([millis]) => millis)
        )
        // without a wake-up the worker claims once a second, so half of the tasks would take longer than 500 milliseconds
        assert.isBelow(median(times), 250)
      })
    )

    test("a delayed task of another process starts as promptly as one without delay", {}, (server) =>
      Effect.gen(function* () {
        const handler = yield* idleWorker(server)
        const store = yield* openStore(server, unswept)
        /** Milliseconds from the time at which a task is due to its start. */
        const startLatency = Effect.fnUntraced(function* (n: number, delayMillis: number) {
          const published = performance.now()
          yield* Effect.provideContext(Count.delay({ n, millis: 0 }, { delay: delayMillis }), store)
          yield* handler.untilBegun(n)
          return performance.now() - published - delayMillis
        })
        const immediate: Array<number> = []
        const delayed: Array<number> = []
        for (const n of [1, 2, 3, 4, 5]) {
          immediate.push(yield* startLatency(2 * n - 1, 0))
          delayed.push(yield* startLatency(2 * n, 330))
        }
        // without a wake-up the worker claims once a second, so half of the tasks would be late by 500 milliseconds
        // a delayed start takes two hops more: the timer, and the promotion
        assert.isBelow(median(delayed), 3 * median(immediate) + 50)
        assert.isAtLeast(Math.min(...delayed), -2)
      })
    )

    test("an idle worker is told once of tasks that are delayed together", {}, (server) =>
      Effect.gen(function* () {
        yield* idleWorker(server)
        const published = yield* collectMessages(server)
        const store = yield* openStore(server, unswept)
        const delayAll = (delay: Duration.Input) =>
          Count.delayAll(
            Array.from({ length: 50 }, (_, n) => ({ n, millis: 0 })),
            { delay }
          ).pipe(Effect.provideContext(store))
        yield* delayAll("1 hour")
        assert.lengthOf(yield* published("due"), 1)
        // these are not due before the others
        yield* delayAll("2 hours")
        assert.lengthOf(yield* published("due"), 0)
      })
    )
  })

  describe.concurrent("callers", () => {
    test("changes of state and the end are pushed", {}, (server) =>
      Effect.gen(function* () {
        const seen = yield* Latch.make(false)
        yield* idleWorker(server, () => seen.await)
        const store = yield* openStore(server, unswept)
        const handle = yield* Effect.provideContext(Count.delay({ n: 7, millis: 0 }), store)
        const changes = yield* AsyncResult.changes(handle).pipe(
          Stream.tap(({ state }) => (state === "STARTED" ? seen.open : Effect.void)),
          Stream.runCollect,
          Effect.provideContext(store),
          Effect.forkScoped
        )
        const [millis, value] = yield* timed(Effect.provideContext(AsyncResult.get(handle), store))
        assert.strictEqual(value, 7)
        // without a hint the end is found by the sweep, after 60 seconds
        assert.isBelow(millis, 20_000)
        const states = [...(yield* Fiber.join(changes))].map(({ state }) => state)
        assert.strictEqual(states.at(-1), "SUCCESS")
        assert.include(states, "STARTED")
      })
    )

    test("2,000 waiting callers cost fewer than 20 calls a second", {}, (server) =>
      Effect.gen(function* () {
        const store = yield* openStore(server)
        const handles = yield* Effect.provideContext(
          Count.delayAll(Array.from({ length: 2000 }, (_, n) => ({ n, millis: 0 }))),
          store
        )
        yield* Effect.forkScoped(
          Effect.forEach(handles, (handle) => AsyncResult.get(handle), {
            concurrency: "unbounded",
            discard: true
          }).pipe(Effect.provideContext(store))
        )
        // they subscribe in order
        const last = `{chicory:0}:task:${handles.at(-1)!.taskId}`
        yield* eventually(
          Effect.map(server.command("GET", last), (record) => !String(record).startsWith("PENDING - - "))
        )
        assert.isBelow(yield* callRate(server, 5), 20)
      })
    )

    test("the subscription opens with the first waiter, and closes with the layer", {}, (server) =>
      Effect.gen(function* () {
        const channels = Effect.map(server.command("PUBSUB", "CHANNELS", "*:process:*"), (found) => {
          return (found as ReadonlyArray<string>).length
        })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const store = yield* openStore(server)
            yield* Effect.provideContext(Count.delay({ n: 1, millis: 0 }), store)
            assert.strictEqual(yield* channels, 0)
            yield* startWorker(store, Count, countingHandler().layer)
            yield* untilSubscribed(server)
          })
        )
        yield* eventually(Effect.map(channels, (count) => count === 0))
      })
    )
  })
})
