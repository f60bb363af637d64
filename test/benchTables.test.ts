import { assert, describe, it } from "@effect/vitest"
import { draw } from "../bench/picture.ts"
import type { Results, Table } from "../bench/results.ts"
import { formatTable } from "../bench/table.ts"
import { fillTables } from "../bench/tables.ts"

const table: Table = {
  name: "workloads",
  title: "One round.",
  columns: ["chicory", "floor", "other"],
  compared: "first / it",
  rows: [
    {
      name: "W2",
      what: "drain",
      unit: "tasks/s",
      cells: {
        chicory: { values: [90, 100, 110] },
        other: { values: [50], fewer: { measured: 20, of: 1000 } }
      }
    }
  ],
  notes: ["other: slow"]
}

const results: Results = {
  store: "redis",
  date: "2026-01-02",
  commit: "abc",
  machine: "node 24, 2 processors, load 0.1",
  tables: [table]
}

describe("the tables of the benchmark", () => {
  it("show medians, how far rounds are from them, and ratios to the first column", () => {
    const [head, line] = formatTable(table, false).split("\n").slice(2)
    assert.deepStrictEqual(head?.split(/\s{2,}/), ["", "unit", "chicory", "floor", "other"])
    assert.deepStrictEqual(line?.split(/\s{2,}/), ["W2", "drain", "tasks/s", "100 ±10%", "-", "50*, 2 x"])
  })

  it("mark what was measured on fewer tasks", () => {
    assert.include(formatTable(table, false), "* too slow for all tasks, so on fewer: other W2: 20 of 1,000")
  })

  it("are Markdown on demand", () => {
    assert.include(formatTable(table, true), "| W2 | drain | tasks/s | 100 ±10% | - | 50*, 2 x |")
  })

  it("replace those of the page", () => {
    const page = "# Page\n\n<!-- redis -->\nold\n<!-- /redis -->\n"
    const filled = fillTables(page, [results])
    assert.notInclude(filled, "old")
    assert.strictEqual(fillTables(filled, [results]), filled)
  })

  it("are drawn for libraries alone", () => {
    const picture = draw([results])
    assert.include(picture, ">other</text>")
    assert.notInclude(picture, "floor")
  })
})
