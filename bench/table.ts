import type { Metric } from "./workloads.ts"

export interface Row {
  readonly system: string
  readonly workload: string
  readonly value: number
  readonly unit: string
}

/** The values of one metric by system, one for each round. */
export interface Measured {
  readonly metric: Metric
  readonly rounds: ReadonlyMap<string, ReadonlyArray<number>>
}

export const median = (values: ReadonlyArray<number>): number | undefined => {
  const sorted = [...values].sort((a, b) => a - b)
  const upper = sorted[Math.floor(sorted.length / 2)]
  const lower = sorted[Math.floor((sorted.length - 1) / 2)]
  return upper === undefined || lower === undefined ? undefined : (lower + upper) / 2
}

export const number = (value: number): string =>
  value.toLocaleString("en-US", { maximumSignificantDigits: value < 1000 ? 3 : 4 })

const cell = (values: ReadonlyArray<number>) => {
  const middle = median(values)
  if (middle === undefined) return "-"
  const spread = Math.max(...values.map((value) => Math.abs(value - middle)))
  return middle === 0 ? "0" : `${number(middle)} ±${Math.round((spread / middle) * 100)}%`
}

const ratio = (mine: ReadonlyArray<number>, theirs: ReadonlyArray<number>) => {
  const [a, b] = [median(mine), median(theirs)]
  return a === undefined || b === undefined || b === 0 ? "-" : `${number(a / b)} x`
}

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

/** Prints a line for each metric, with a column for each system and the first system's ratio to each of the others. */
export const format = (systems: ReadonlyArray<string>, measured: ReadonlyArray<Measured>): string => {
  const [first = "", ...others] = systems
  const lines = [["", "", "unit", ...systems, ...others.map((other) => `${first} / ${other}`)]]
  for (const { metric, rounds } of measured) {
    const values = (system: string) => rounds.get(system) ?? []
    lines.push([
      metric.name,
      metric.what,
      metric.unit,
      ...systems.map((system) => cell(values(system))),
      ...others.map((other) => ratio(values(first), values(other)))
    ])
  }
  return alignColumns(lines, (column) => column < 3)
}

export const rows = (measured: ReadonlyArray<Measured>): Array<Row> =>
  measured.flatMap(({ metric, rounds }) =>
    [...rounds].flatMap(([system, values]) => {
      const value = median(values)
      return value === undefined ? [] : [{ system, workload: metric.name, value, unit: metric.unit }]
    })
  )
