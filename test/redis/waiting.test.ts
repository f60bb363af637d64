/** What waiting costs, and how soon it ends: of workers for tasks, and of callers for results. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { Duration, Effect, Fiber, Stream } from "effect"
import { Count, countingHandler, eventually, roundTrip, startWorker, timed } from "../support/storeFixture.ts"
import { describeWithServers, type Server } from "./server.ts"
import { openStore, testWithServer as test, untilSubscribed } from "./storeFixture.ts"

/** No sweep comes to help. */
const unswept = { sweepInterval: "60 seconds" } as const

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1]!

/** Scripts that clients called a second, over a while. */
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

/** A worker that has nothing to do, and has left word that it is idle. */
const idleWorker = Effect.fnUntraced(function* (server: Server) {
  const handler = countingHandler()
  yield* startWorker(yield* openStore(server, unswept), Count, handler.layer)
  yield* untilSubscribed(server)
  yield* eventually(
    Effect.map(server.command("ZCARD", "{chicory:0}:queue:default:idle"), (idle) => Number(idle) === 1)
  )
  return handler
})

describeWithServers("waiting", () => {
  describe.concurrent("of workers", () => {
    test("an idle worker does not spin", {}, (server) =>
      Effect.gen(function* () {
        yield* idleWorker(server)
        assert.isBelow(yield* callRate(server, 3), 5)
      })
    )

    test("a task that comes while a worker is idle starts at once", {}, (server) =>
      Effect.gen(function* () {
        yield* idleWorker(server)
        const store = yield* openStore(server, unswept)
        const times = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], (n) =>
          Effect.map(timed(Effect.provideContext(roundTrip(n), store)), ([millis]) => millis)
        )
        // it looks once a second by itself
        assert.isBelow(median(times), 100)
      })
    )

    test("a delayed task starts within 50 ms of its time, whoever published it", {}, (server) =>
      Effect.gen(function* () {
        const handler = yield* idleWorker(server)
        const store = yield* openStore(server, unswept)
        const late: Array<number> = []
        for (const n of [1, 2, 3, 4, 5]) {
          const published = performance.now()
          yield* Effect.provideContext(Count.delay({ n, millis: 0 }, { delay: "330 millis" }), store)
          yield* handler.untilBegun(n)
          late.push(performance.now() - published - 330)
        }
        assert.isBelow(median(late), 50)
        assert.isAtLeast(Math.min(...late), -2)
      })
    )
  })

  describe.concurrent("of callers", () => {
    test("a change of state and an end are pushed", {}, (server) =>
      Effect.gen(function* () {
        yield* idleWorker(server)
        const store = yield* openStore(server, unswept)
        const handle = yield* Effect.provideContext(Count.delay({ n: 7, millis: 700 }), store)
        const changes = yield* Effect.forkScoped(
          Stream.runCollect(AsyncResult.changes(handle)).pipe(Effect.provideContext(store))
        )
        const [millis, value] = yield* timed(Effect.provideContext(AsyncResult.get(handle), store))
        assert.strictEqual(value, 7)
        assert.isBelow(millis, 2000)
        const states = [...(yield* Fiber.join(changes))].map(({ state }) => state)
        assert.strictEqual(states.at(-1), "SUCCESS")
        assert.include(states, "STARTED")
      })
    )

    test("2,000 of them cost fewer than 20 calls a second", {}, (server) =>
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
        // one registers after the other, the last last
        const last = `{chicory:0}:task:${handles.at(-1)!.taskId}`
        yield* eventually(
          Effect.map(server.command("GET", last), (record) => !String(record).startsWith("PENDING - - "))
        )
        assert.isBelow(yield* callRate(server, 5), 20)
      })
    )

    test("there is no subscription before somebody waits, and none after the layer is closed", {}, (server) =>
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
