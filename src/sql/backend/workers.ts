/**
 * Registers workers by their heartbeats, and lists them.
 */
import { Effect } from "effect"
import type { Heartbeat, WorkerInfo } from "../../BackendDriver.ts"
import * as heartbeatCodec from "../../internal/driver/heartbeatCodec.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"

/** The registry of workers. */
export interface WorkerOperations {
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, StoreError>
  readonly unregister: (id: string) => Effect.Effect<void, StoreError>
  readonly list: Effect.Effect<ReadonlyArray<WorkerInfo>, StoreError>
}

/** Keeps the registry in one database. */
export const makeWorkers = ({ dialect, reader, run, table }: Database): WorkerOperations => {
  const { incoming, now } = dialect
  const workers = table("workers")
  // the time of the start is kept while the worker's last heartbeat has not expired
  const upsert = `INSERT INTO ${workers} (id, info, started_at, seen_at, until)
    VALUES (?, ?, ${now}, ${now}, ${now} + ?)
    ${dialect.onConflictUpdate("id")}
      info = ${incoming("info")},
      started_at = CASE WHEN ${workers}.until > ${incoming("seen_at")} THEN ${workers}.started_at
        ELSE ${incoming("started_at")} END,
      seen_at = ${incoming("seen_at")},
      until = ${incoming("until")}`
  const remove = `DELETE FROM ${workers} WHERE id = ?`
  const select = `SELECT info, started_at, seen_at FROM ${workers} WHERE until > ${now} ORDER BY started_at, id`
  const read = reader<{ readonly info: string; readonly started_at: number; readonly seen_at: number }>(
    "workers",
    { info: Row.text, started_at: Row.integer, seen_at: Row.integer }
  )

  return {
    heartbeat: (worker, ttlMillis) =>
      Effect.flatMap(Effect.orDie(heartbeatCodec.encode(worker)), (info) =>
        Effect.asVoid(run(upsert, [worker.id, info, toMillis(ttlMillis)]))
      ),
    unregister: (id) => Effect.asVoid(run(remove, [id])),
    list: Effect.flatMap(Effect.flatMap(run(select), read), (rows) =>
      heartbeatCodec.decodeAll(
        rows.map(({ info, seen_at, started_at }) => ({ info, startedAt: started_at, seenAt: seen_at }))
      )
    )
  }
}
