/** The names of lanes. */
import { assert, describe, it } from "@effect/vitest"
import * as Lanes from "../../../src/internal/driver/lanes.ts"

const names = ["", "q", "1:q", "q\u0001t", ":", "1", "mäil", "😀", "\u0001"]

describe("names of lanes", () => {
  it("tell every queue and task apart, and are read back", () => {
    const lanes = names.flatMap((queue) => names.map((task) => ({ queue, task })))
    const encoded = lanes.map(Lanes.encode)
    assert.strictEqual(new Set(encoded).size, lanes.length)
    assert.deepStrictEqual(encoded.map(Lanes.decode), lanes)
  })

  it("lie between two bounds, of which no queue is named", () => {
    const [after, before] = Lanes.LANES
    for (const queue of names) {
      const name = Lanes.encode({ queue, task: "t" })
      assert.isTrue(name > after && name < before)
    }
    for (const queue of ["q", "default", "1:q", " "]) assert.isTrue(queue > before)
  })

  it("of a queue are none", () => {
    for (const name of ["q", "1:qt", ""]) {
      assert.isUndefined(Lanes.decode(name))
      assert.strictEqual(Lanes.queueOf(name), name)
    }
    assert.strictEqual(Lanes.queueOf(Lanes.encode({ queue: "q", task: "t" })), "q")
  })

  it("that are damaged are names of queues", () => {
    for (const name of ["\u0001", "\u0001x:q", "\u00019:q"]) assert.isUndefined(Lanes.decode(name))
  })
})
