import { assert, describe, it } from "@effect/vitest"
import { DateTime } from "effect"
import { toDate, latestMillis } from "../../src/internal/dates.ts"

describe("dateOf", () => {
  for (const [millis, expected] of [
    [0, 0],
    [1_700_000_000_000, 1_700_000_000_000],
    [latestMillis, latestMillis],
    [latestMillis + 1, latestMillis],
    [Number.MAX_SAFE_INTEGER, latestMillis],
    [-Number.MAX_SAFE_INTEGER, -latestMillis]
  ] as const) {
    it(`clamps ${millis} to a valid date`, () =>
      assert.strictEqual(DateTime.toEpochMillis(toDate(millis)), expected))
  }
})
