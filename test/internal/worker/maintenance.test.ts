import { assert, it } from "@effect/vitest"
import { Effect, Logger, References } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

/** Returns the levels of what a worker logs about its sweep within some hours, where every sweep fails. */
const levelsOf = (isPermanent: boolean, hours: number) => {
  const levels: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (String(message).includes("Failed to sweep the store")) levels.push(logLevel)
  })
  return Effect.gen(function* () {
    const { start } = yield* WorkerFixture.make({
      backend: (driver) => ({
        capabilities: { ...driver.capabilities, reliableHints: false },
        isPermanent: () => isPermanent,
        sweep: () => Effect.fail("permission denied")
      })
    })
    yield* start
    yield* Effect.repeat(MemoryFixture.advance("10 minutes"), { times: hours * 6 })
    return levels
  }).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.MinimumLogLevel, "Debug"))
}

it.effect("a sweep that cannot succeed is reported as an error, once an hour", () =>
  Effect.gen(function* () {
    const levels = yield* levelsOf(true, 2)
    assert.strictEqual(levels[0], "Error")
    assert.lengthOf(
      levels.filter((level) => level === "Error"),
      3
    )
    assert.isAbove(levels.length, 100)
  })
)

it.effect("a sweep that fails for now is not reported as an error", () =>
  Effect.gen(function* () {
    const levels = yield* levelsOf(false, 1)
    assert.isAbove(levels.length, 10)
    assert.notInclude(levels, "Error")
  })
)

it.effect("a worker counts no queues", () =>
  Effect.gen(function* () {
    const { enqueueAll, fixture, start } = yield* WorkerFixture.make({
      broker: (driver) => ({ capabilities: { ...driver.capabilities, reliableHints: false } })
    })
    yield* start
    yield* enqueueAll(3)
    yield* Effect.repeat(MemoryFixture.advance("10 seconds"), { times: 6 })
    assert.strictEqual(fixture.count("counts"), 0)
  })
)
