/** The text that the demo prints at its end: the largest files, the totals, the speed, the audit. */
import { DateTime, Duration, Option } from "effect"
import { type Audit, type Evidence, Outcome } from "./audit.ts"

const number = new Intl.NumberFormat("en")

/** Aligns columns: text to the left, numbers to the right. */
const table = (rows: ReadonlyArray<ReadonlyArray<string | number>>): ReadonlyArray<string> => {
  const cells = rows.map((row) => row.map((cell) => (typeof cell === "number" ? number.format(cell) : cell)))
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)))
  const isNumeric = widths.map((_, column) => rows.some((row) => typeof row[column] === "number"))
  return cells.map((row) =>
    row
      .map((cell, column) =>
        isNumeric[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)
      )
      .join("  ")
      .trimEnd()
  )
}

const sum = (all: ReadonlyArray<number>) => all.reduce((a, b) => a + b, 0)

const median = (all: ReadonlyArray<number>) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0

const seconds = (duration: Duration.Input) => `${Duration.toSeconds(duration).toFixed(2)} s`

/** Returns a table of the largest files, and the totals of all. */
export const files = ({ enqueued, received }: Evidence, relative: (path: string) => string, largest = 8) => {
  const digests = received
    .flatMap(({ outcome, taskId }) =>
      Outcome.$is("Digested")(outcome) ? [{ path: enqueued.get(taskId)!, digest: outcome.digest }] : []
    )
    .toSorted((a, b) => b.digest.bytes - a.digest.bytes)
  const total = (of: "bytes" | "gzipped" | "lines") => sum(digests.map(({ digest }) => digest[of]))
  return table([
    ["Largest files", "bytes", "gzipped", "lines", "sha-256"],
    ...digests
      .slice(0, largest)
      .map(({ digest: { bytes, gzipped, lines, sha256 }, path }) => [
        relative(path),
        bytes,
        gzipped,
        lines,
        `${sha256.slice(0, 12)}…`
      ]),
    [`All ${digests.length} files`, total("bytes"), total("gzipped"), total("lines"), ""]
  ])
}

/** Returns a line for each failure that the task declares. */
export const failures = ({ received }: Evidence) =>
  received.flatMap(({ outcome }) =>
    Outcome.$is("Unreadable")(outcome) ? [`FileUnreadable: ${outcome.error.message}`] : []
  )

/** Returns the rate and the median latencies. Times are the store's. */
export const speed = ({ records }: Evidence, elapsed: Duration.Duration) => {
  const between = (from: "enqueuedAt" | "startedAt") =>
    [...records.values()].flatMap((record) =>
      Option.match(Option.all([record[from], record.finishedAt]), {
        onNone: () => [],
        onSome: ([start, end]) => [Duration.toMillis(DateTime.distance(start, end))]
      })
    )
  const rate = number.format(Math.round(records.size / Duration.toSeconds(elapsed)))
  return (
    `${number.format(records.size)} tasks in ${seconds(elapsed)}: ${rate} tasks/s; median latency ` +
    `${seconds(median(between("enqueuedAt")))} from enqueue to end, ${median(between("startedAt"))} ms from start to end`
  )
}

/** Returns the audit in one line. */
export const audit = ({ doubled, enqueued, failures, lost, results, takenOver }: Audit) =>
  `Audit: ${enqueued} enqueued, ${results} results, ${failures} typed failure${failures === 1 ? "" : "s"}, ` +
  `${takenOver} taken over and run again, ${lost} lost, ${doubled} doubled`
