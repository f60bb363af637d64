import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { makeOnceAMinute } from "../../../src/internal/driver/onceAMinute.ts"

describe("makeOnceAMinute", () => {
  it.effect("answers true at first and once a minute", () =>
    Effect.gen(function* () {
      const isDue = makeOnceAMinute()
      const due: Array<number> = []
      for (let second = 0; second < 150; second++) {
        if (yield* isDue) due.push(second)
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(due, [0, 60, 120])
    })
  )
})
