/** Reports of a load test's processes: figures of their memory and their work. */
import { readdirSync } from "node:fs"
import { Effect, Schema } from "effect"

/** A milestone, with figures by name. Sizes are in MiB. */
export const Report = Schema.Struct({
  milestone: Schema.String,
  figures: Schema.Record(Schema.String, Schema.Number),
  ids: Schema.optionalKey(Schema.Array(Schema.String))
})
export type Report = typeof Report.Type

/** Figures by name. */
export type Figures = Report["figures"]

/** Writes a report to the process that started this one. */
export const report = (milestone: string, figures: Figures = {}, ids?: ReadonlyArray<string>): void => {
  const line: Report = { milestone, figures, ...(ids === undefined ? {} : { ids }) }
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

const MEBIBYTE = 1024 * 1024
const rounded = (bytes: number): number => Math.round((bytes / MEBIBYTE) * 10) / 10

/** Returns the MiB of live objects and external memory after a garbage collection. */
export const alive = (): number => {
  globalThis.gc?.()
  const { external, heapUsed } = process.memoryUsage()
  return rounded(heapUsed + external)
}

/** Returns this process's memory and the number of its open descriptors. */
export const memory = (): Figures => ({
  alive: alive(),
  rss: rounded(process.memoryUsage.rss()),
  peak: rounded(process.resourceUsage().maxRSS * 1024),
  descriptors: readdirSync("/proc/self/fd").length
})

/** Runs an effect and returns the peak of the heap, sampled every 50 milliseconds, and its value. */
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
