/** Measured durations, printed at the end of a suite if `CHICORY_FIGURES` is set. */
import { Array as Arr } from "effect"

/** Collects durations in milliseconds. */
export interface Figures {
  readonly note: (subject: string, what: string, millis: number) => void
  /** Formats one line for each subject. */
  readonly table: (title: string) => string
}

const show = (millis: number): string => `${Math.round(millis)} ms`

export const make = (): Figures => {
  const noted: Array<{ readonly subject: string; readonly what: string; readonly millis: number }> = []
  return {
    note: (subject, what, millis) => void noted.push({ subject, what, millis }),
    table: (title) => {
      const lines = Object.entries(Arr.groupBy(noted, ({ subject, what }) => `${subject}: ${what}`)).map(
        ([name, some]) => {
          const sorted = some.map(({ millis }) => millis).sort((a, b) => a - b)
          const median = sorted[Math.floor(sorted.length / 2)] ?? 0
          return `  ${name}: p50 ${show(median)}, max ${show(sorted.at(-1) ?? 0)} (${sorted.length})`
        }
      )
      return [title, ...lines.sort()].join("\n")
    }
  }
}

/** Prints figures if `CHICORY_FIGURES` is set. */
export const print = (title: string, figures: Figures): void => {
  if (process.env["CHICORY_FIGURES"]) console.log(figures.table(title))
}
