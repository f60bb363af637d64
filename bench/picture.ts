/**
 * Draws bars of chicory beside other libraries, from the results that `--json` wrote:
 * `node bench/picture.ts bench/results/*.json` writes `docs/benchmarks.svg`.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { median, type Results, type Row } from "./results.ts"
import { number } from "./table.ts"

/** The workloads that are drawn, all of them in tasks a second. */
const drawn = [
  { name: "W1b", title: "enqueue, 64 in flight" },
  { name: "W2", title: "drain by one worker" },
  { name: "W3b", title: "round trips, 200 callers" }
]

const titles: Readonly<Record<string, string>> = {
  sqlite: "SQLite",
  redis: "Redis",
  postgres: "PostgreSQL",
  mariadb: "MariaDB",
  rabbitmq: "RabbitMQ"
}

/** The hand-written systems. They are no libraries, so they are not drawn. */
const isLibrary = (system: string) => !system.startsWith("floor")

const PANEL = 280
const GAP = 20
const MARGIN = 16
const HEAD = 40
const STORE_HEAD = 26
const PANEL_HEAD = 20
const BAR = 20
const LABEL = 108
const VALUE = 52
const FULL = PANEL - LABEL - VALUE

const style = `text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 14px; font-weight: 600 } .store { font-size: 13px; font-weight: 600 } .what { fill: #59636e }
.chicory { fill: #d6452b } .other { fill: #b1bac4 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .what { fill: #9198a1 } .chicory { fill: #ff7b5c } .other { fill: #57606a }
}`

const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

const text = (x: number, y: number, content: string, kind = "", anchor = "start") =>
  `<text x="${x}" y="${y}"${kind && ` class="${kind}"`}${anchor === "start" ? "" : ` text-anchor="${anchor}"`}>${escape(content)}</text>`

interface Bar {
  readonly system: string
  readonly value: number
}

const barsOf = (row: Row, systems: ReadonlyArray<string>): ReadonlyArray<Bar> =>
  systems.flatMap((system) => {
    const value = median(row.cells[system]?.values ?? [])
    return value === undefined ? [] : [{ system, value }]
  })

const drawPanel = (x: number, y: number, title: string, bars: ReadonlyArray<Bar>): ReadonlyArray<string> => {
  const most = Math.max(...bars.map(({ value }) => value))
  return [
    text(x, y + 13, title, "what"),
    ...bars.flatMap(({ system, value }, index) => {
      const top = y + PANEL_HEAD + index * BAR
      const width = Math.max(1, (value / most) * FULL).toFixed(1)
      const kind = system === "chicory" ? "chicory" : "other"
      const end = x + LABEL + Number(width) + 6
      return [
        text(x + LABEL - 8, top + 14, system, "", "end"),
        `<rect x="${x + LABEL}" y="${top + 3}" width="${width}" height="${BAR - 6}" rx="2" class="${kind}"/>`,
        text(end, top + 14, number(value))
      ]
    })
  ]
}

/** Draws the stores for which there are libraries to compare with. */
export const draw = (all: ReadonlyArray<Results>): string => {
  const shapes: Array<string> = []
  let y = HEAD
  for (const { store, tables } of all) {
    const table = tables.find(({ name }) => name === "workloads")
    const systems = table?.columns.filter(isLibrary) ?? []
    if (table === undefined || systems.length < 2) continue
    const panels = drawn.map(({ name, title }) => {
      const row = table.rows.find((one) => one.name === name)
      return { title, bars: row ? barsOf(row, systems) : [] }
    })
    shapes.push(text(MARGIN, y + 16, titles[store] ?? store, "store"))
    panels.forEach(({ bars, title }, index) => {
      if (bars.length > 0) {
        shapes.push(...drawPanel(MARGIN + index * (PANEL + GAP), y + STORE_HEAD, title, bars))
      }
    })
    y += STORE_HEAD + PANEL_HEAD + Math.max(...panels.map(({ bars }) => bars.length)) * BAR + GAP
  }
  const width = 2 * MARGIN + drawn.length * PANEL + (drawn.length - 1) * GAP
  const { date = "", machine = "" } = all[0] ?? {}
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img"`,
    ` aria-label="Tasks a second of chicory and of other libraries">`,
    `<style>${style}</style>`,
    text(MARGIN, 24, "Tasks a second; longer is better", "head"),
    text(width - MARGIN, 24, `${date}, ${machine.replace(/, load.*/, "")}`, "what", "end"),
    ...shapes,
    "</svg>",
    ""
  ].join("\n")
}

/** Reads what `--json` wrote. */
export const readResults = (files: ReadonlyArray<string>): ReadonlyArray<Results> =>
  files.map((file) => JSON.parse(readFileSync(file, "utf8")) as Results)

if (import.meta.main) {
  const files = process.argv.slice(2)
  if (files.length === 0) throw new Error("which results? node bench/picture.ts bench/results/*.json")
  writeFileSync(new URL("../docs/benchmarks.svg", import.meta.url), draw(readResults(files)))
}
