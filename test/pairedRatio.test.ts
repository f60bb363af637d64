import { assert, describe, it } from "@effect/vitest"
import { containsOne, isNarrow, pairedRatio } from "../bench/pairedRatio.ts"

describe("pairedRatio", () => {
  it("is the geometric mean of the ratios, with Student's t over their logarithms", () => {
    const pairs = [0.1, 0.2, 0.3].map((log) => [7 * Math.exp(log), 7] as const)
    const found = pairedRatio(pairs)
    assert.isDefined(found)
    assert.closeTo(found.ratio, Math.exp(0.2), 1e-9)
    assert.closeTo(Math.log(found.high) - 0.2, (4.303 * 0.1) / Math.sqrt(3), 1e-9)
    assert.closeTo(0.2 - Math.log(found.low), (4.303 * 0.1) / Math.sqrt(3), 1e-9)
  })

  it("is undefined for a single pair and for a value of 0", () => {
    assert.isUndefined(pairedRatio([[1, 2]]))
    assert.isUndefined(
      pairedRatio([
        [0, 1],
        [1, 1]
      ])
    )
  })

  it("distinguishes noise from a difference, and a narrow interval from a wide one", () => {
    const noise = { ratio: 1.01, low: 0.97, high: 1.05 }
    assert.isTrue(containsOne(noise) && isNarrow(noise))
    assert.isFalse(containsOne({ ratio: 1.06, low: 1.01, high: 1.11 }))
    assert.isFalse(isNarrow({ ratio: 1, low: 0.92, high: 1.09 }))
  })
})
