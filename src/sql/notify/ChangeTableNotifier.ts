/**
 * Tells those who wait that a task changed.
 *
 * Within a process it is told directly. For other processes whoever writes adds one row to the table `changes`, with
 * the ids of the whole batch, in the same transaction; but only while another process waits for something, which
 * the table `watchers` says. So work that nobody waits for pays one look into an empty table. Rows are numbered
 * without a gap, and only the newest are kept: a reader that fell behind sees the gap, and reads everything again.
 */
import { Effect, Latch, Schema, Semaphore, Stream } from "effect"
import type { Database } from "../Database.ts"
import * as Row from "../Row.ts"
import { sleep } from "../sleep.ts"
import type { WriteWatchClient } from "./clientCapabilities.ts"
import { type TaskNotifier, LocalSubscriptions } from "./TaskNotifier.ts"

/** How long a process counts as waiting after it last said so. */
const WATCH_MILLIS = 30_000
const WATCH_RENEW_MILLIS = 10_000
/** Rows that are kept for readers. */
const KEPT_ROWS = 2048
/** How often, in rows, the writer looks for what is too old. */
const TRIM_EVERY = 256
const KEPT_MILLIS = 60_000

const Ids = Schema.fromJsonString(Schema.Array(Schema.String))
const decodeIds = Schema.decodeUnknownEffect(Ids)

/** Over one database. `source` tells this process from others. */
export const make = (db: Database, client: WriteWatchClient, source: string): TaskNotifier => {
  const { dialect, store } = db
  const changes = db.table("changes")
  const watchers = db.table("watchers")

  const insert = `INSERT INTO ${changes} (source, ids, at) VALUES (?, ?, ${dialect.now}) RETURNING seq`
  const insertIfWatched = `INSERT INTO ${changes} (source, ids, at) SELECT ?, ?, ${dialect.now}
    WHERE EXISTS (SELECT 1 FROM ${watchers} WHERE until > ${dialect.now} AND id <> ?) RETURNING seq`
  const removeUpTo = `DELETE FROM ${changes} WHERE seq <= ?`
  // the newest row stays, so that numbers are never used again
  const removeOld = `DELETE FROM ${changes} WHERE at < ${dialect.now} - ${KEPT_MILLIS}
    AND seq < (SELECT MAX(seq) FROM ${changes})`
  const removeWatchers = `DELETE FROM ${watchers} WHERE until <= ${dialect.now}`
  const selectNewest = `SELECT COALESCE(MAX(seq), 0) AS seq FROM ${changes}`
  const selectSince = `SELECT seq, source, ids FROM ${changes} WHERE seq > ? ORDER BY seq`
  const upsertWatcher = dialect.upsert({
    table: watchers,
    values: { id: "?", until: `${dialect.now} + ${WATCH_MILLIS}` },
    key: ["id"],
    set: (incoming) => ({ until: incoming("until") })
  })
  const removeWatcher = `DELETE FROM ${watchers} WHERE id = ?`
  const readSeq = db.reader<{ readonly seq: number }>("changes", { seq: Row.integer })
  const readChange = db.reader<{ readonly seq: number; readonly source: string; readonly ids: string }>(
    "changes",
    {
      seq: Row.integer,
      source: Row.text,
      ids: Row.text
    }
  )

  const watched = new LocalSubscriptions()
  /** By the monotonic clock of this process: until then other processes know that this one waits. */
  let knownUntil = -Infinity
  const foreign = Latch.makeUnsafe(false)
  const registering = Semaphore.makeUnsafe(1)

  const trimAfter = (rows: ReadonlyArray<{ readonly seq: number }>) => {
    const seq = rows[0]?.seq
    return seq !== undefined && seq % TRIM_EVERY === 0
      ? Effect.asVoid(db.run(removeUpTo, [seq - KEPT_ROWS]))
      : Effect.void
  }

  const register = registering.withPermit(
    Effect.suspend(() => {
      const asked = performance.now()
      if (asked < knownUntil - WATCH_MILLIS + WATCH_RENEW_MILLIS) return Effect.void
      return Effect.map(db.run(upsertWatcher, [source]), () => {
        // there was a time in which nobody wrote for this process
        if (knownUntil !== -Infinity && performance.now() > knownUntil) watched.tellResync()
        knownUntil = asked + WATCH_MILLIS
      })
    })
  )

  // Reads what others left, as often as they wake this process.
  const follow = Effect.gen(function* () {
    let last = (yield* Effect.flatMap(db.run(selectNewest), readSeq))[0]!.seq
    if (watched.some) {
      yield* register
      watched.tellResync()
    }
    while (true) {
      yield* foreign.await
      foreign.closeUnsafe()
      const rows = yield* Effect.flatMap(db.run(selectSince, [last]), readChange)
      if (rows.length === 0) continue
      if (rows[0]!.seq !== last + 1) watched.tellResync()
      last = rows.at(-1)!.seq
      for (const row of rows) {
        if (row.source === source) continue
        watched.tellAll(
          yield* Effect.mapError(
            decodeIds(row.ids),
            () => new Row.CorruptRow({ store, table: "changes", column: "ids", value: row.ids })
          )
        )
      }
    }
  })

  const renewing = Effect.gen(function* () {
    while (true) {
      yield* sleep(WATCH_RENEW_MILLIS)
      if (watched.some) yield* register
    }
  })

  return {
    recordChanges: (ids) =>
      ids.length === 0
        ? Effect.void
        : Effect.flatMap(
            Effect.flatMap(db.run(insertIfWatched, [source, JSON.stringify(ids), source]), readSeq),
            trimAfter
          ),
    recordChangesForAll: (ids) =>
      ids.length === 0
        ? Effect.void
        : Effect.flatMap(Effect.flatMap(db.run(insert, [source, JSON.stringify(ids)]), readSeq), trimAfter),
    notify: (ids, kind) => watched.tell(ids, kind),
    notifyLocal: (ids) => watched.tell(ids, "end"),
    notifyAll: (ids) => watched.tellAll(ids),
    subscribe: (ids, until) =>
      Effect.suspend(() => {
        watched.add(ids, until)
        return watched.listening ? register : Effect.void
      }),
    unsubscribe: (ids) => watched.remove(ids),
    hints: Stream.unwrap(
      Effect.gen(function* () {
        yield* client.onWrite(() => foreign.openUnsafe())
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            watched.listening = true
          }),
          () =>
            Effect.suspend(() => {
              watched.listening = false
              knownUntil = -Infinity
              return Effect.ignore(db.run(removeWatcher, [source]))
            })
        )
        return Stream.merge(
          watched.stream,
          Stream.fromEffectDrain(Effect.all([follow, renewing], { concurrency: 2, discard: true }))
        )
      })
    ),
    trim: Effect.asVoid(Effect.andThen(db.run(removeOld), db.run(removeWatchers)))
  }
}
