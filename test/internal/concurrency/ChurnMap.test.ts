import { assert, it } from "@effect/vitest"
import { ChurnMap } from "../../../src/internal/concurrency/ChurnMap.ts"

it("ChurnMap keeps its entries in insertion order while it is rebuilt", () => {
  const map = new ChurnMap<number, string>()
  const plain = new Map<number, string>()
  for (let n = 0; n < 20_000; n++) {
    map.set(n, `value ${n}`)
    plain.set(n, `value ${n}`)
    if (n % 7 !== 0) assert.strictEqual(map.delete(n - 3), plain.delete(n - 3))
    assert.strictEqual(map.size, plain.size)
  }
  assert.deepStrictEqual([...map], [...plain])
  assert.deepStrictEqual([...map.values()], [...plain.values()])
  for (let n = 0; n < 20_000; n++) {
    assert.strictEqual(map.get(n), plain.get(n))
    assert.strictEqual(map.has(n), plain.has(n))
  }
})
