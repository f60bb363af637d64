/** Logs that a full server starts no run, once until it does again. */
import { Effect } from "effect"
import { MAX_OVERRUN } from "./scripts/lib/fullMemory.ts"

/** The log of one store. */
export interface RefusalLog {
  readonly onRefused: (shard: number) => Effect.Effect<void>
  readonly onAccepted: (shard: number) => void
}

const MESSAGE =
  `The Redis server's memory is full, and what was stored since has passed its maxmemory by ${MAX_OVERRUN / 2 ** 20} MiB. No task` +
  " is started until memory is free: raise maxmemory, or remove keys."

/** Makes the log. A store is refused until all of its shards accept again. */
export const make = (): RefusalLog => {
  const refused = new Set<number>()
  return {
    onRefused: (shard) =>
      Effect.suspend(() => {
        const isFirst = refused.size === 0
        refused.add(shard)
        return isFirst ? Effect.logWarning(MESSAGE) : Effect.void
      }),
    onAccepted: (shard) => void refused.delete(shard)
  }
}
