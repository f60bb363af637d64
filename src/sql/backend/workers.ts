/**
 * The registry of workers, by their heartbeats.
 */
import { Effect } from "effect"
import type { Heartbeat, WorkerInfo } from "../../BackendDriver.ts"
import * as HeartbeatText from "../../internal/driver/heartbeatCodec.ts"
import { type Database, toMillis, type StoreError } from "../Database.ts"
import * as Row from "../Row.ts"

/** The operations. */
export interface WorkerOperations {
  readonly heartbeat: (worker: Heartbeat, ttlMillis: number) => Effect.Effect<void, StoreError>
  readonly farewell: (id: string) => Effect.Effect<void, StoreError>
  readonly list: Effect.Effect<ReadonlyArray<WorkerInfo>, StoreError>
}

/** Over one database. */
export const make = (db: Database): WorkerOperations => {
  const { dialect } = db
  const table = db.table("workers")
  const upsert = dialect.upsert({
    table,
    values: {
      id: "?",
      info: "?",
      started_at: dialect.now,
      seen_at: dialect.now,
      until: `${dialect.now} + ?`
    },
    key: ["id"],
    set: (incoming) => ({
      info: incoming("info"),
      // a worker that was away begins anew; this is judged by what it said before
      started_at: `CASE WHEN ${table}.until > ${incoming("seen_at")} THEN ${table}.started_at
        ELSE ${incoming("started_at")} END`,
      seen_at: incoming("seen_at"),
      until: incoming("until")
    })
  })
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
        Effect.asVoid(db.run(upsert, [worker.id, info, toMillis(ttlMillis)]))
      ),
    farewell: (id) => Effect.asVoid(db.run(remove, [id])),
    list: Effect.flatMap(Effect.flatMap(db.run(select), read), (rows) =>
      HeartbeatText.decodeAll(
        rows.map((row) => ({ info: row.info, startedAt: row.started_at, seenAt: row.seen_at }))
      )
    )
  }
}
