/** What the measurements of scale have in common. */
import { fileURLToPath } from "node:url"
import type { Process } from "../processes.ts"
import type { Table } from "../results.ts"
import type { Store } from "../stores.ts"
import type { Extent } from "../workloads.ts"
import type { ScaleCalls } from "./child.ts"

/** The module that the processes of chicory run. */
export const child = fileURLToPath(new URL("child.ts", import.meta.url))

export type ScaleProcess = Process<ScaleCalls>

/** One run. */
export interface Run {
  readonly storeName: string
  readonly store: Store
  /** The names of the systems. Growth and workers are those of chicory alone. */
  readonly systems: ReadonlyArray<string>
  readonly size: Extent["size"]
  /** Runs a measurement, and reports a failure as one of the run. */
  readonly attempt: <A>(title: string, measure: () => Promise<A>) => Promise<A | undefined>
}

/** Makes one table of a run. */
export type Part = (run: Run) => Promise<Table>

/** Tasks that one call of a process enqueues, so that no call takes too long. */
const MAX_FILL = 50_000

/** Enqueues tasks. Returns the id of one of each 1,000. */
export const fill = async (process: ScaleProcess, count: number): Promise<ReadonlyArray<string>> => {
  const ids: Array<string> = []
  for (let left = count; left > 0; left -= MAX_FILL) {
    ids.push(...(await process.call("fill", Math.min(left, MAX_FILL))))
  }
  return ids
}

export const thousands = (count: number): string => count.toLocaleString("en-US")
