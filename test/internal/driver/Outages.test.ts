import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Logger } from "effect"
import { TestClock } from "effect/testing"
import { Outages, outagesOf } from "../../../src/internal/driver/Outages.ts"
import { captureLogs } from "../../../src/testing/suites/worker/captureLogs.ts"

const away = Cause.fail({ retryable: true })
const refused = Cause.fail({ retryable: false })

/** Makes outages, whose lines above Debug are captured as level and text. */
const make = () => {
  const outages = new Outages("mystore")
  const logs = captureLogs()
  const lines = () =>
    logs.lines.filter(({ level }) => level !== "Debug").map(({ level, text }) => [level, text])
  const texts = () => lines().map(([, text]) => text)
  return { outages, lines, texts, capture: logs.capture }
}

const BEGAN = "Failed to call the store mystore; calls are repeated until it answers again"

describe("the outages of a store", () => {
  it.effect("are one line when they begin and one when they are over, whatever fails meanwhile", () => {
    const { capture, lines, outages } = make()
    return Effect.gen(function* () {
      for (let second = 0; second < 8; second++) {
        yield* outages.failed(away)
        yield* outages.failed(away)
        yield* TestClock.adjust("1 second")
      }
      assert.isTrue(outages.isOngoing)
      yield* outages.succeeded
      yield* outages.succeeded
      assert.isFalse(outages.isOngoing)
      assert.deepStrictEqual(lines(), [
        ["Warn", BEGAN],
        ["Info", "The store mystore answers again; it recovered after 8.0 s"]
      ])
    }).pipe(capture)
  })

  it.effect("of a store that fails now and then are logged once a minute", () => {
    const { capture, outages, texts } = make()
    return Effect.gen(function* () {
      for (let second = 0; second < 180; second++) {
        yield* outages.failed(away)
        yield* TestClock.adjust("1 second")
        yield* outages.succeeded
      }
      assert.lengthOf(
        texts().filter((text) => text === BEGAN),
        3
      )
      assert.lengthOf(texts(), 6)
    }).pipe(capture)
  })

  it.effect("are logged soon after another one if they last", () => {
    const { capture, outages, texts } = make()
    return Effect.gen(function* () {
      yield* outages.failed(away)
      yield* outages.succeeded
      for (let second = 0; second < 10; second++) {
        yield* TestClock.adjust("1 second")
        yield* outages.failed(away)
      }
      assert.lengthOf(texts(), 3)
      assert.strictEqual(texts()[2], BEGAN)
    }).pipe(capture)
  })

  it.effect("that no repetition ends are errors, once an hour", () => {
    const { capture, lines, outages } = make()
    return Effect.gen(function* () {
      for (let minute = 0; minute < 130; minute++) {
        yield* outages.failed(refused)
        yield* TestClock.adjust("1 minute")
      }
      assert.deepStrictEqual(
        lines(),
        Array.from({ length: 3 }, () => [
          "Error",
          "Failed to call the store mystore; calls fail until the cause is mended"
        ])
      )
    }).pipe(capture)
  })

  it.effect("that no repetition ends are logged once, whatever else is answered", () => {
    const { capture, outages, texts } = make()
    return Effect.gen(function* () {
      for (let call = 0; call < 5; call++) {
        yield* outages.failed(refused)
        yield* outages.succeeded
      }
      assert.lengthOf(texts(), 1)
    }).pipe(capture)
  })

  it.effect(
    "that no repetition ends are over once the store has answered for a minute, and are logged anew",
    () => {
      const { capture, lines, outages } = make()
      return Effect.gen(function* () {
        for (let round = 0; round < 2; round++) {
          yield* outages.failed(refused)
          yield* TestClock.adjust("10 seconds")
          for (let second = 0; second <= 90; second++) {
            yield* outages.succeeded
            yield* TestClock.adjust("1 second")
          }
        }
        const began = ["Error", "Failed to call the store mystore; calls fail until the cause is mended"]
        const ended = ["Info", "The store mystore answers again; it recovered after 10.0 s"]
        assert.deepStrictEqual(lines(), [began, ended, began, ended])
      }).pipe(capture)
    }
  )

  it.effect("that no repetition ends go on while some calls are refused, whatever else is answered", () => {
    const { capture, outages, texts } = make()
    return Effect.gen(function* () {
      for (let second = 0; second < 600; second++) {
        if (second % 30 === 0) yield* outages.failed(refused)
        yield* outages.succeeded
        yield* TestClock.adjust("1 second")
      }
      assert.lengthOf(texts(), 1)
    }).pipe(capture)
  })

  it.effect("end no loop whose logger throws", () =>
    Effect.gen(function* () {
      yield* new Outages("mystore").failed(away)
    }).pipe(
      Effect.provide(
        Logger.layer([
          Logger.make(() => {
            throw new Error("no disk")
          })
        ])
      )
    )
  )

  it.effect("last while a connection is lost, though calls are answered without it", () => {
    const { capture, outages, texts } = make()
    return Effect.gen(function* () {
      yield* outages.connectionLost(away)
      yield* outages.connectionLost(away)
      yield* TestClock.adjust("2 seconds")
      yield* outages.succeeded
      yield* outages.connectionRestored
      assert.lengthOf(texts(), 1)
      yield* TestClock.adjust("1 second")
      yield* outages.connectionRestored
      assert.strictEqual(texts()[1], "The store mystore answers again; it recovered after 3.0 s")
    }).pipe(capture)
  })

  it("are shared by what names the same store", () => {
    const store = {}
    assert.strictEqual(outagesOf(store, "a"), outagesOf(store, "a"))
    assert.notStrictEqual(outagesOf(undefined, "a"), outagesOf(undefined, "a"))
  })
})

describe("a background task", () => {
  it.effect("is logged once when it has failed for 30 seconds, and when it recovers", () => {
    const { capture, lines, outages } = make()
    const task = outages.background("receive hints")
    return Effect.gen(function* () {
      for (let second = 0; second < 42; second++) {
        yield* task.failed(away)
        yield* TestClock.adjust("1 second")
      }
      yield* task.succeeded
      yield* task.succeeded
      assert.deepStrictEqual(lines(), [
        ["Warn", "Failed to receive hints for 30.0 s; trying again"],
        ["Info", "Recovered after 42.0 s of failures to receive hints"]
      ])
    }).pipe(capture)
  })

  for (const every of ["15 seconds", "30 seconds", "1 minute", "5 minutes"] as const) {
    it.effect(`that repeats every ${every} is logged when it has failed for 30 seconds`, () => {
      const { capture, lines, outages } = make()
      const task = outages.background("measure the depth of queues")
      return Effect.gen(function* () {
        for (let failures = 0; failures < 10; failures++) {
          yield* task.failed(away)
          yield* TestClock.adjust(every)
        }
        yield* task.succeeded
        assert.lengthOf(lines(), 2)
        assert.strictEqual(lines()[0]?.[0], "Warn")
        assert.match(
          lines()[0]?.[1] ?? "",
          /^Failed to measure the depth of queues for \d+\.0 s; trying again$/
        )
        assert.match(lines()[1]?.[1] ?? "", /^Recovered after /)
      }).pipe(capture)
    })
  }

  it.effect("whose failures come between successes is not logged", () => {
    const { capture, outages, texts } = make()
    const task = outages.background("measure the depth of queues")
    return Effect.gen(function* () {
      for (let minute = 0; minute < 10; minute++) {
        yield* task.failed(away)
        yield* TestClock.adjust("1 minute")
        yield* task.succeeded
      }
      assert.deepStrictEqual(texts(), [])
    }).pipe(capture)
  })

  it.effect("that may be silent is not logged during an outage, nor if it fails seldom", () => {
    const { capture, outages, texts } = make()
    const task = outages.background("receive hints", { mayBeSilent: true })
    return Effect.gen(function* () {
      for (let second = 0; second < 60; second++) {
        yield* outages.failed(away)
        yield* task.failed(away)
        yield* TestClock.adjust("1 second")
      }
      yield* outages.succeeded
      yield* task.succeeded
      for (let minute = 0; minute < 5; minute++) {
        yield* task.failed(away)
        yield* TestClock.adjust("1 minute")
      }
      assert.lengthOf(texts(), 2)
    }).pipe(capture)
  })

  it.effect("that no repetition mends is an error", () => {
    const { capture, lines, outages } = make()
    const task = outages.background("receive hints")
    return Effect.gen(function* () {
      yield* task.failed(refused)
      yield* task.failed(refused)
      assert.deepStrictEqual(lines(), [
        ["Error", "Failed to receive hints; it fails until the cause is mended"]
      ])
    }).pipe(capture)
  })
})
