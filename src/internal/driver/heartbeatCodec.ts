/** The heartbeat of a worker as stores keep it: JSON. */
import { Effect, Schema } from "effect"
import type { WorkerInfo } from "../../BackendDriver.ts"

const Heartbeat = Schema.fromJsonString(
  Schema.Struct({
    id: Schema.String,
    hostname: Schema.String,
    pid: Schema.Number,
    queues: Schema.Array(Schema.String),
    tasks: Schema.Array(Schema.String),
    concurrency: Schema.Number,
    running: Schema.Number
  })
)

/** Encodes a heartbeat as text. */
export const encode = Schema.encodeEffect(Heartbeat)

const decode = Schema.decodeUnknownOption(Heartbeat)

/** A heartbeat as a store returns it. */
export interface StoredHeartbeat extends Pick<WorkerInfo, "startedAt" | "seenAt"> {
  readonly info: string
}

/** Decodes heartbeats. Undecodable entries are skipped and logged, so that they do not hide the others. */
export const decodeAll = (
  stored: ReadonlyArray<StoredHeartbeat>
): Effect.Effect<ReadonlyArray<WorkerInfo>> => {
  const workers = stored.flatMap(({ info, seenAt, startedAt }): ReadonlyArray<WorkerInfo> => {
    const worker = decode(info)
    return worker._tag === "Some" && Number.isSafeInteger(startedAt) && Number.isSafeInteger(seenAt)
      ? [{ ...worker.value, startedAt, seenAt }]
      : []
  })
  const undecodable = stored.length - workers.length
  return undecodable === 0
    ? Effect.succeed(workers)
    : Effect.as(
        Effect.logWarning(
          `Failed to decode ${undecodable} entries of the worker registry; they are left out`
        ),
        workers
      )
}
