/**
 * The registry of workers, by their heartbeats.
 */
import { Effect } from "effect"
import type { Heartbeat, WorkerInfo } from "../BackendDriver.ts"
import * as HeartbeatText from "../internal/heartbeat.ts"
import type { Database, StoreError } from "./Database.ts"
import * as Row from "./Row.ts"

/** The operations. */
export interface Workers {
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, StoreError>
  readonly farewell: (id: string) => Effect.Effect<void, StoreError>
  readonly list: Effect.Effect<ReadonlyArray<WorkerInfo>, StoreError>
}

/** Over one database. */
export const make = (db: Database): Workers => {
  const { dialect, store } = db
  const table = db.table("workers")
  const upsert = `INSERT INTO ${table} (id, info, started_at, seen_at, until)
    VALUES (?, ?, ${dialect.now}, ${dialect.now}, ${dialect.now} + ?)
    ON CONFLICT (id) DO UPDATE SET info = excluded.info, seen_at = excluded.seen_at, until = excluded.until,
      started_at = CASE WHEN ${table}.until > excluded.seen_at THEN ${table}.started_at ELSE excluded.started_at END`
  const remove = `DELETE FROM ${table} WHERE id = ?`
  const select = `SELECT info, started_at, seen_at FROM ${table} WHERE until > ${dialect.now} ORDER BY started_at, id`
  const read = db.reader<{ readonly info: string; readonly started_at: number; readonly seen_at: number }>(
    "workers",
    {
      info: Row.text,
      started_at: Row.integer,
      seen_at: Row.integer
    }
  )

  return {
    heartbeat: (worker, ttlMillis) =>
      Effect.flatMap(Effect.orDie(HeartbeatText.encode(worker)), (info) =>
        Effect.asVoid(db.run(upsert, [worker.id, info, Math.ceil(ttlMillis)]))
      ),
    farewell: (id) => Effect.asVoid(db.run(remove, [id])),
    list: Effect.flatMap(Effect.flatMap(db.run(select), read), (rows) =>
      Effect.forEach(rows, (row) =>
        HeartbeatText.decode(row.info).pipe(
          Effect.mapError(
            () => new Row.CorruptRow({ store, table: "workers", column: "info", value: row.info })
          ),
          Effect.map((info): WorkerInfo => ({ ...info, startedAt: row.started_at, seenAt: row.seen_at }))
        )
      )
    )
  }
}
