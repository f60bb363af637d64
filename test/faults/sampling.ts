/** Samples the resources of this process. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Effect } from "effect"
import type { Sample } from "./growth.ts"

setFlagsFromString("--expose_gc")
const collectGarbage: () => void = runInNewContext("gc")

/** Takes a sample after a garbage collection. */
export const sample: Effect.Effect<Sample> = Effect.sync(() => {
  collectGarbage()
  const { heapUsed, rss } = process.memoryUsage()
  return { heap: heapUsed, rss, handles: process.getActiveResourcesInfo().length }
})
