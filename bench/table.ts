/** Prints results as aligned text or as Markdown. */
import { type Cell, median, type Results, type Row, type Table } from "./results.ts"

export const number = (value: number): string =>
  value.toLocaleString("en-US", { maximumSignificantDigits: value < 1000 ? 3 : 4 })

/** Pads the cells to the width of their column, on the right in columns of text and on the left in columns of numbers. */
export const alignColumns = (
  lines: ReadonlyArray<ReadonlyArray<string>>,
  isText: (column: number) => boolean
): string => {
  const width = (column: number) => Math.max(...lines.map((line) => line[column]?.length ?? 0))
  const widths = lines[0]?.map((_, column) => width(column)) ?? []
  const pad = (text: string, column: number) =>
    isText(column) ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0)
  return lines.map((line) => line.map(pad).join("  ").trimEnd()).join("\n")
}

/** Columns before those of the values. */
const HEAD = 3

const alignMarkdown = (lines: ReadonlyArray<ReadonlyArray<string>>): string => {
  const [head = [], ...rest] = lines
  const rule = head.map((_, column) => (column < HEAD ? "---" : "---:"))
  return [head, rule, ...rest].map((line) => `| ${line.join(" | ")} |`).join("\n")
}

const spread = (values: ReadonlyArray<number>, middle: number) => {
  if (values.length < 2 || middle === 0) return ""
  const furthest = Math.max(...values.map((value) => Math.abs(value - middle)))
  return ` ±${Math.round((furthest / middle) * 100)}%`
}

const ratio = ({ compared }: Table, first: Cell | undefined, cell: Cell) => {
  const [a, b] = [median(first?.values ?? []), median(cell.values)]
  if (compared === "not" || first === cell || a === undefined || b === undefined) return ""
  const value = compared === "first / it" ? a / b : b / a
  return Number.isFinite(value) ? `, ${number(value)} x` : ""
}

const cellText = (table: Table, { cells }: Row, column: string) => {
  const cell = cells[column]
  const middle = cell && median(cell.values)
  if (cell === undefined || middle === undefined) return "-"
  const mark = cell.fewer ? "*" : ""
  return `${number(middle)}${mark}${spread(cell.values, middle)}${ratio(table, cells[table.columns[0] ?? ""], cell)}`
}

/** Says for which columns a row was measured on fewer tasks. Rows of one workload say it once. */
const fewerTasks = ({ columns, rows }: Table): ReadonlyArray<string> => {
  const said = new Set<string>()
  for (const { cells, name } of rows) {
    for (const column of columns) {
      const fewer = cells[column]?.fewer
      if (fewer === undefined) continue
      const workload = name.split("-")[0] ?? name
      said.add(`${column} ${workload}: ${number(fewer.measured)} of ${number(fewer.of)}`)
    }
  }
  return said.size === 0 ? [] : [`* too slow for all tasks, so on fewer: ${[...said].join("; ")}`]
}

/** Prints one table with its title and its notes. */
export const formatTable = (table: Table, markdown: boolean): string => {
  const lines = [
    ["", "", "unit", ...table.columns],
    ...table.rows.map((row) => [
      row.name,
      row.what,
      row.unit,
      ...table.columns.map((column) => cellText(table, row, column))
    ])
  ]
  const notes = [...fewerTasks(table), ...table.notes]
  const body = markdown ? alignMarkdown(lines) : alignColumns(lines, (column) => column < HEAD)
  const list = markdown ? notes.map((note) => `- ${note.replace(/^\*/, "\\*")}`) : notes
  return [table.title, body, list.join("\n")].filter((part) => part !== "").join("\n\n")
}

/** Prints all tables. */
export const format = ({ commit, date, machine, store, tables }: Results, markdown: boolean): string =>
  [
    `${store}, ${date}, commit ${commit}, ${machine}`,
    ...tables.map((table) => formatTable(table, markdown))
  ].join("\n\n")
