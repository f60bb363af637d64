import { assert, describe, it } from "@effect/vitest"
import { DeadLetters, Task } from "chicory"
import type { SetAside } from "chicory/driver"
import { Clock, Effect, Exit, Logger, Scope } from "effect"
import { advance } from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

const Unknown = Task.make("unknown")

interface Options extends WorkerFixture.Options {
  /** Default `true`. */
  readonly losesNoHint?: boolean
  readonly setAside?: (setAside: SetAside<never>) => Partial<SetAside>
}

/** A worker with a grace of 10 minutes, and the times at which it lists and claims what was set aside. */
const make = Effect.fnUntraced(function* ({ losesNoHint = true, setAside, ...options }: Options = {}) {
  const listedAt: Array<number> = []
  const claimedAt: Array<number> = []
  const noting = <A, E>(times: Array<number>, call: Effect.Effect<A, E>) =>
    Effect.andThen(
      Effect.map(Clock.currentTimeMillis, (now) => times.push(now / 1000)),
      call
    )
  const worker = yield* WorkerFixture.make({
    worker: { unknownTaskGrace: "10 minutes" },
    broker: (driver) => {
      const calls: SetAside = { ...driver.setAside!, ...setAside?.(driver.setAside!) }
      return {
        capabilities: { ...driver.capabilities, reliableHints: losesNoHint },
        setAside: {
          tasks: (queues) => noting(listedAt, calls.tasks(queues)),
          claim: (claim) => noting(claimedAt, calls.claim(claim))
        }
      }
    },
    ...options
  })
  const provide = Effect.provideContext(worker.fixture.context)
  return {
    ...worker,
    listedAt,
    claimedAt,
    delayUnknown: (count: number) => provide(Unknown.delayAll(Array(count).fill(undefined))),
    letters: provide(DeadLetters.count())
  }
})

describe("a worker on a store that loses no hint", () => {
  it.effect("lists what was set aside when something changed, and when the grace is over", () =>
    Effect.gen(function* () {
      const { delayUnknown, letters, listedAt, start } = yield* make()
      yield* start
      yield* advance("1 hour")
      // the worker's own subscription is a hint
      assert.deepStrictEqual(listedAt, [0, 10])
      yield* delayUnknown(2)
      yield* advance("599 seconds")
      assert.strictEqual(yield* letters, 0)
      assert.deepStrictEqual(listedAt.slice(2), [3610])
      yield* advance("1 second")
      assert.strictEqual(yield* letters, 2)
      yield* advance("1 hour")
      assert.deepStrictEqual(listedAt.slice(3), [4200, 4210])
    })
  )

  it.effect("lists at most once in an interval while its queue changes", () =>
    Effect.gen(function* () {
      const { delayUnknown, listedAt, start } = yield* make()
      yield* start
      for (let n = 0; n < 60; n++) {
        yield* delayUnknown(1)
        yield* advance("1 second")
      }
      assert.isAtMost(listedAt.length, 1 + 60 / 10)
    })
  )

  it.effect("ends a message that was due before those that were set aside earlier", () =>
    Effect.gen(function* () {
      const { delayUnknown, fixture, letters, start } = yield* make()
      yield* fixture.broker.publish.one({
        id: "older",
        task: "unknown",
        queue: "default",
        priority: 0,
        delayMillis: 0,
        body: "{}"
      })
      yield* fixture.create("older", { task: "unknown" })
      // another worker holds it, and vanishes
      yield* fixture.broker.claim({ queues: ["default"], max: 1, leaseMillis: 300_000, worker: "vanished" })
      yield* advance("4 minutes")
      yield* start
      yield* delayUnknown(1)
      yield* advance("361 seconds")
      assert.strictEqual(yield* letters, 1)
    })
  )
})

describe("a worker on a store that may lose hints", () => {
  for (const [grace, calls] of [
    ["1 day", 60],
    ["1 hour", 60],
    ["10 minutes", 360],
    [0, 3600]
  ] as const) {
    it.effect(`lists what was set aside ${calls} times an hour, with a grace of ${grace}`, () =>
      Effect.gen(function* () {
        const { listedAt, start } = yield* make({
          losesNoHint: false,
          worker: { unknownTaskGrace: grace }
        })
        yield* start
        yield* advance("1 hour")
        assert.lengthOf(listedAt, calls)
      })
    )
  }
})

describe("tasks that no worker knows", () => {
  it.effect("end in batches, with a pause as long as a batch took", () =>
    Effect.gen(function* () {
      const { claimedAt, delayUnknown, letters, start } = yield* make({
        setAside: ({ claim }) => ({ claim: (request) => Effect.delay(claim(request), "2 seconds") })
      })
      yield* start
      yield* delayUnknown(600)
      yield* advance("20 minutes")
      assert.deepStrictEqual(claimedAt, [600, 604, 608, 612])
      assert.strictEqual(yield* letters, 600)
    })
  )

  it.effect("are left to other workers when the worker stops", () =>
    Effect.gen(function* () {
      const { claimedAt, delayUnknown, letters, start } = yield* make({
        worker: { unknownTaskGrace: "10 minutes", drainTimeout: "1 minute" },
        setAside: ({ claim }) => ({ claim: (request) => Effect.delay(claim(request), "2 seconds") })
      })
      const scope = yield* Scope.make()
      yield* Scope.provide(start, scope)
      yield* delayUnknown(600)
      yield* advance("601 seconds")
      const stopping = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* advance("1 minute")
      assert.isDefined(stopping.pollUnsafe())
      assert.strictEqual(yield* letters, 256)
      assert.deepStrictEqual(claimedAt, [600])
    })
  )

  it.effect("are logged once while they wait", () => {
    const lines: Array<string> = []
    const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
      if (String(message).includes("set aside")) lines.push(`${logLevel}: ${String(message)}`)
    })
    return Effect.gen(function* () {
      const { delayUnknown, start } = yield* make()
      yield* start
      yield* delayUnknown(3)
      yield* advance("5 minutes")
      yield* delayUnknown(3)
      yield* advance("4 minutes")
      assert.deepStrictEqual(lines, [
        "Info: Messages of a task that this worker does not know are set aside; a worker that knows it runs them, and otherwise they end after 10m"
      ])
    }).pipe(Effect.provide(Logger.layer([logger])))
  })

  it.effect("end once the store lists them again", () =>
    Effect.gen(function* () {
      let isDown = true
      const { delayUnknown, letters, start } = yield* make({
        losesNoHint: false,
        setAside: ({ tasks }) => ({
          tasks: (queues) => (isDown ? Effect.fail("it is down") : tasks(queues))
        })
      })
      yield* start
      yield* delayUnknown(3)
      yield* advance("20 minutes")
      assert.strictEqual(yield* letters, 0)
      isDown = false
      yield* advance("1 minute")
      assert.strictEqual(yield* letters, 3)
    })
  )
})
