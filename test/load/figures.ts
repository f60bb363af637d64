/** What a process of a load test tells of itself: figures of its memory, and of what it has done. */
import { readdirSync } from "node:fs"
import { Effect, Schema } from "effect"

/** What was reached, with figures by their names. Sizes are MiB. */
export const Report = Schema.Struct({
  milestone: Schema.String,
  figures: Schema.Record(Schema.String, Schema.Number),
  ids: Schema.optionalKey(Schema.Array(Schema.String))
})
export type Report = typeof Report.Type

/** By their names. */
export type Figures = Report["figures"]

/** Tells the process that started this one. */
export const report = (milestone: string, figures: Figures = {}, ids?: ReadonlyArray<string>): void => {
  const line: Report = { milestone, figures, ...(ids === undefined ? {} : { ids }) }
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

const MEBIBYTE = 1024 * 1024
const rounded = (bytes: number): number => Math.round((bytes / MEBIBYTE) * 10) / 10

/** What is alive on the heap and beside it, after a collection. */
export const alive = (): number => {
  globalThis.gc?.()
  const { external, heapUsed } = process.memoryUsage()
  return rounded(heapUsed + external)
}

/** The memory of this process, and its open files and sockets. */
export const memory = (): Figures => ({
  alive: alive(),
  rss: rounded(process.memoryUsage.rss()),
  peak: rounded(process.resourceUsage().maxRSS * 1024),
  descriptors: readdirSync("/proc/self/fd").length
})

/** What is alive at the most, looked at again and again while an effect runs. */
export const peakOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [number, A], E, R> =>
  Effect.suspend(() => {
    let most = 0
    const look = Effect.sync(() => {
      const { external, heapUsed } = process.memoryUsage()
      most = Math.max(most, heapUsed + external)
    })
    return Effect.map(
      Effect.raceFirst(effect, Effect.forever(Effect.andThen(look, Effect.sleep("50 millis")))),
      (value) => [rounded(most), value] as const
    )
  })
