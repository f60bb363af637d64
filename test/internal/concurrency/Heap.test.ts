import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Heap, type Member } from "../../../src/internal/concurrency/Heap.ts"

interface Item extends Member {
  readonly value: number
}

const make = () => new Heap<Item>((self, that) => self.value < that.value)
const item = (value: number): Item => ({ value, position: -1 })

const drain = (heap: Heap<Item>): Array<number> => {
  const values: Array<number> = []
  for (let first = heap.peek(); first !== undefined; first = heap.peek()) {
    values.push(first.value)
    heap.remove(first)
  }
  return values
}

describe("Heap", () => {
  it.prop(
    "pops its members in order, whatever was removed meanwhile",
    [Schema.Array(Schema.Int)],
    ([values]) => {
      const heap = make()
      const items = values.map(item)
      for (const one of items) heap.push(one)
      for (const one of items) if (one.value % 3 === 0) heap.remove(one)
      const left = values.filter((value) => value % 3 !== 0)
      assert.strictEqual(heap.size, left.length)
      assert.deepStrictEqual(
        drain(heap),
        left.toSorted((self, that) => self - that)
      )
    }
  )

  it("accepts a removed member again", () => {
    const heap = make()
    const [one, two] = [item(1), item(2)]
    heap.push(one)
    heap.push(two)
    heap.remove(one)
    heap.push(one)
    assert.deepStrictEqual(drain(heap), [1, 2])
  })

  it("does not remove a member of another heap", () => {
    const [heap, other] = [make(), make()]
    const [one, two] = [item(1), item(2)]
    heap.push(one)
    other.push(two)
    heap.remove(two)
    heap.remove(item(1))
    assert.deepStrictEqual([drain(heap), drain(other)], [[1], [2]])
  })
})
