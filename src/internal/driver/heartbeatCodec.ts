/** What a worker tells of itself, as stores keep it. */
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

/** To text. */
export const encode = Schema.encodeEffect(Heartbeat)

const decode = Schema.decodeUnknownOption(Heartbeat)

/** What a store has of a worker. */
export interface StoredHeartbeat extends Pick<WorkerInfo, "startedAt" | "seenAt"> {
  readonly info: string
}

/** From text. What nobody can read is passed over: it must not hide the others. */
export const decodeAll = (kept: ReadonlyArray<StoredHeartbeat>): Effect.Effect<ReadonlyArray<WorkerInfo>> => {
  const workers = kept.flatMap(({ info, seenAt, startedAt }): ReadonlyArray<WorkerInfo> => {
    const worker = decode(info)
    return worker._tag === "Some" && Number.isSafeInteger(startedAt) && Number.isSafeInteger(seenAt)
      ? [{ ...worker.value, startedAt, seenAt }]
      : []
  })
  const unread = kept.length - workers.length
  return unread === 0
    ? Effect.succeed(workers)
    : Effect.as(Effect.logWarning(`${unread} entries in the list of workers cannot be read`), workers)
}
