/** A blocked event loop, which a clock imitates: its monotonic time jumps while a handler runs, and no timer fires. */
import { assert, describe, it } from "@effect/vitest"
import type { BackendDriver } from "chicory/driver"
import { Clock, Duration, Effect, Logger } from "effect"
import { advance } from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

/** Runs a test with `block`, which blocks the event loop, and with the lines of blocks and lost runs. */
const blocking = <A, E, R>(
  test: (
    block: (time: Duration.Input) => Effect.Effect<void>,
    lines: ReadonlyArray<string>
  ) => Effect.Effect<A, E, R>
) =>
  Clock.clockWith((clock) => {
    let blocked = 0n
    const jumping: Clock.Clock = Object.assign(Object.create(clock), {
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + blocked
    })
    const lines: Array<string> = []
    const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
      const isLost = /superseded|Lost the lease/.test(String(message))
      if (logLevel === "Warn" || isLost) lines.push(String(message))
    })
    const block = (time: Duration.Input) =>
      Effect.sync(() => {
        blocked += Duration.toNanosUnsafe(Duration.fromInputUnsafe(time))
      })
    return test(block, lines).pipe(
      Effect.provideService(Clock.Clock, jumping),
      Effect.provide(Logger.layer([logger]))
    )
  })

/** Starts a worker with a lease of 9 seconds and one task. */
const start = Effect.fnUntraced(function* (
  handler: Effect.Effect<number>,
  backend?: (driver: BackendDriver<never>) => Partial<BackendDriver>
) {
  const worker = yield* WorkerFixture.make({
    worker: { lease: "9 seconds" },
    handler: () => handler,
    backend
  })
  yield* worker.enqueue("a")
  yield* worker.start
  yield* advance("1 second")
  return worker
})

const superseded = () => ({
  renew: () => Effect.succeed(["Lost" as const]),
  settle: () => Effect.succeed(["Lost" as const])
})

describe("guarantee 6: a lease that is lost", () => {
  it.effect("during a block says so while its handler runs on", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        yield* start(Effect.andThen(block("27 seconds"), Effect.never), superseded)
        yield* advance("3 seconds")
        const lost = lines.filter((line) => line.startsWith("Lost the lease"))
        assert.lengthOf(lost, 1)
        assert.include(
          lost[0],
          "Lost the lease of a run, since the event loop was blocked for 27.0 s, longer than the lease of 9 s; its handler is interrupted"
        )
      })
    )
  )

  it.effect("during a block says so when its handler has ended", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        yield* start(Effect.as(block("27 seconds"), 1), superseded)
        const lost = lines.filter((line) => line.startsWith("A run was superseded"))
        assert.lengthOf(lost, 1)
        // the timer that measures was not due for a second of it
        assert.include(
          lost[0],
          "A run was superseded, since the event loop was blocked for 26.0 s, longer than the lease of 9 s; its outcome is dropped"
        )
      })
    )
  )

  it.effect("during a block that is shorter says so too", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        const handler = Effect.sleep("9500 millis").pipe(
          Effect.andThen(block("8500 millis")),
          Effect.andThen(Effect.never)
        )
        let isSuperseded = false
        yield* start(handler, (driver) => ({
          renew: (runs) => (isSuperseded ? Effect.succeed(["Lost" as const]) : driver.renew(runs))
        }))
        yield* advance("8400 millis")
        assert.deepStrictEqual(lines, [])
        isSuperseded = true
        yield* advance("4 seconds")
        const [lost] = lines.filter((line) => line.startsWith("Lost the lease"))
        assert.include(lost, "since the event loop was blocked for 8.5 s of the lease of 9 s;")
      })
    )
  )

  it.effect("for another reason keeps its reason, although a short block came before", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        yield* start(Effect.andThen(block("2 seconds"), Effect.never), () => ({
          renew: () => Effect.fail("cut off")
        }))
        yield* advance("20 seconds")
        const lost = lines.filter((line) => line.startsWith("Lost the lease"))
        assert.lengthOf(lost, 1)
        assert.include(lost[0], "Lost the lease of a run, since no renewal succeeded within the lease;")
      })
    )
  )

  it.effect("long after a block does not name it", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        let isSuperseded = false
        yield* start(Effect.andThen(block("27 seconds"), Effect.never), (driver) => ({
          renew: (runs) => (isSuperseded ? Effect.succeed(["Lost" as const]) : driver.renew(runs))
        }))
        yield* advance("20 seconds")
        isSuperseded = true
        yield* advance("4 seconds")
        const [lost] = lines.filter((line) => line.startsWith("Lost the lease"))
        assert.include(lost, "since the store says that the run was superseded;")
      })
    )
  )
})

describe("a blocked event loop", () => {
  it.effect("is warned of once a minute, if it was blocked for more than a third of the lease", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        yield* start(
          Effect.forever(
            Effect.andThen(
              Effect.sleep("10 seconds"),
              Effect.suspend(() => block("4 seconds"))
            )
          )
        )
        yield* advance("50 seconds")
        assert.deepStrictEqual(lines, [
          "The event loop was blocked for 4.0 s, more than a third of the lease of 9 s; no lease was renewed meanwhile. " +
            "Run CPU-bound work in a worker thread, or set a longer lease"
        ])
        yield* advance("30 seconds")
        assert.lengthOf(lines, 2)
      })
    )
  )

  it.effect("is not warned of below a third of the lease", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        yield* start(
          Effect.forever(
            Effect.andThen(
              Effect.sleep("10 seconds"),
              Effect.suspend(() => block("3 seconds"))
            )
          )
        )
        yield* advance("59 seconds")
        assert.deepStrictEqual(lines, [])
      })
    )
  )

  it.effect("is not measured while nothing runs", () =>
    blocking((block, lines) =>
      Effect.gen(function* () {
        const { enqueue, record } = yield* start(Effect.succeed(1))
        yield* advance("10 seconds")
        yield* block("1 hour")
        yield* enqueue("b")
        yield* advance("10 seconds")
        assert.strictEqual((yield* record("b")).state, "SUCCESS")
        assert.deepStrictEqual(lines, [])
      })
    )
  )
})
