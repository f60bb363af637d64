/**
 * Notifies waiters through a table of changes, in a database whose client notices writes of other processes.
 *
 * Waiters of the same process are notified directly. For other processes a writer adds one row to the table `changes`,
 * with the ids of the whole batch, in the same transaction, and only while another process has a row in the table
 * `watchers`: so a task without waiters costs one read of an empty table. The rows are numbered without a gap, and
 * only the newest are kept: a reader that fell behind sees the gap, and resyncs.
 */
import { Effect, Latch, Schema, type Scope, Semaphore, Stream } from "effect"
import { shapeOf } from "../../internal/errorText.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { sleep } from "../sleep.ts"
import type { WriteWatchClient } from "./clientCapabilities.ts"
import { LocalSubscriptions } from "./LocalSubscriptions.ts"
import type { TaskNotifier } from "./TaskNotifier.ts"

/** How long a registration in `watchers` is valid, and how often it is renewed. */
const WATCH_MILLIS = 30_000
const WATCH_RENEW_MILLIS = 10_000
/** How many rows of changes are kept, and every how many rows a writer removes older ones. */
const KEPT_ROWS = 2048
const TRIM_EVERY_ROWS = 256
/** How long rows of changes are kept at most once `trim` runs. */
const KEPT_MILLIS = 60_000

const Ids = Schema.fromJsonString(Schema.Array(Schema.String))
const decodeIds = Schema.decodeUnknownEffect(Ids)

/** Writes and reads the table of changes. `source` is the id of this process. */
const makeChangeTable = (db: Database, source: string) => {
  const { dialect, reader, run, store } = db
  const { now } = dialect
  const changes = db.table("changes")
  const watchers = db.table("watchers")
  const insert = `INSERT INTO ${changes} (source, ids, at) VALUES (?, ?, ${now}) RETURNING seq`
  const insertIfWatched = `INSERT INTO ${changes} (source, ids, at) SELECT ?, ?, ${now}
    WHERE EXISTS (SELECT 1 FROM ${watchers} WHERE until > ${now} AND id <> ?) RETURNING seq`
  const removeUpTo = `DELETE FROM ${changes} WHERE seq <= ?`
  // the newest row stays, so that no number is used twice
  const removeOld = `DELETE FROM ${changes} WHERE at < ${now} - ${KEPT_MILLIS}
    AND seq < (SELECT MAX(seq) FROM ${changes})`
  const selectNewest = `SELECT COALESCE(MAX(seq), 0) AS seq FROM ${changes}`
  const selectSince = `SELECT seq, source, ids FROM ${changes} WHERE seq > ? ORDER BY seq`
  const readSeq = reader<{ readonly seq: number }>("changes", { seq: Row.integer })
  const readChanges = reader<{ readonly seq: number; readonly source: string; readonly ids: string }>(
    "changes",
    { seq: Row.integer, source: Row.text, ids: Row.text }
  )

  const trimAfter = (rows: ReadonlyArray<object>) =>
    Effect.flatMap(readSeq(rows), ([row]) =>
      row !== undefined && row.seq % TRIM_EVERY_ROWS === 0
        ? Effect.asVoid(run(removeUpTo, [row.seq - KEPT_ROWS]))
        : Effect.void
    )

  return {
    write: (ids: ReadonlyArray<string>): Effect.Effect<void, StoreError> =>
      Effect.flatMap(run(insert, [source, JSON.stringify(ids)]), trimAfter),
    writeIfWatched: (ids: ReadonlyArray<string>): Effect.Effect<void, StoreError> =>
      Effect.flatMap(run(insertIfWatched, [source, JSON.stringify(ids), source]), trimAfter),
    newest: Effect.map(Effect.flatMap(run(selectNewest), readSeq), (rows) => rows[0]!.seq),
    /** Returns the changes after a row. The ids of this process's own are not decoded. */
    since: Effect.fnUntraced(function* (seq: number) {
      const rows = yield* Effect.flatMap(run(selectSince, [seq]), readChanges)
      const others = rows.filter((row) => row.source !== source)
      const ids = yield* Effect.forEach(others, (row) =>
        Effect.mapError(
          decodeIds(row.ids),
          () => new Row.CorruptRow({ store, table: "changes", column: "ids", holds: shapeOf(row.ids) })
        )
      )
      return { first: rows[0]?.seq, last: rows.at(-1)?.seq ?? seq, ids: ids.flat() }
    }),
    removeOld: Effect.asVoid(run(removeOld))
  }
}

/** Keeps the registration of this process in `watchers`. */
const makeRegistration = (db: Database, source: string, onGap: () => void) => {
  const { incoming, now, onConflictUpdate } = db.dialect
  const watchers = db.table("watchers")
  const upsert = `INSERT INTO ${watchers} (id, until) VALUES (?, ${now} + ${WATCH_MILLIS})
    ${onConflictUpdate("id")} until = ${incoming("until")}`
  const remove = `DELETE FROM ${watchers} WHERE id = ?`
  const removeOld = `DELETE FROM ${watchers} WHERE until <= ${now}`
  /** Until when other processes see the registration, by the monotonic clock of this process. */
  let validUntil = -Infinity
  const registering = Semaphore.makeUnsafe(1)

  return {
    /** Registers, or renews a registration that is a third over. */
    register: registering.withPermit(
      Effect.suspend(() => {
        const sentAt = performance.now()
        if (sentAt < validUntil - WATCH_MILLIS + WATCH_RENEW_MILLIS) return Effect.void
        return Effect.map(db.run(upsert, [source]), () => {
          // other processes wrote no changes for this one in the meantime
          if (validUntil !== -Infinity && performance.now() > validUntil) onGap()
          validUntil = sentAt + WATCH_MILLIS
        })
      })
    ),
    unregister: Effect.suspend(() => {
      validUntil = -Infinity
      return Effect.ignore(db.run(remove, [source]))
    }),
    removeOld: Effect.asVoid(db.run(removeOld))
  }
}

/** Makes the notifier over one database. `source` is the id of this process. */
export const make = (db: Database, client: WriteWatchClient, source: string): TaskNotifier => {
  const subscriptions = new LocalSubscriptions()
  const table = makeChangeTable(db, source)
  const { register, removeOld, unregister } = makeRegistration(db, source, () => subscriptions.resync())
  const written = Latch.makeUnsafe(false)

  /** Reads the changes of other processes whenever they wrote. */
  const follow = Effect.gen(function* () {
    let last = yield* table.newest
    if (subscriptions.any) {
      yield* register
      subscriptions.resync()
    }
    while (true) {
      yield* written.await
      written.closeUnsafe()
      const found = yield* table.since(last)
      if (found.first !== undefined && found.first !== last + 1) subscriptions.resync()
      last = found.last
      subscriptions.notifyAll(found.ids)
    }
  })
  const renew = Effect.gen(function* () {
    while (true) {
      yield* sleep(WATCH_RENEW_MILLIS)
      if (subscriptions.any) yield* register
    }
  })
  const activate: Effect.Effect<void, never, Scope.Scope> = Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        subscriptions.active = true
      }),
      () =>
        Effect.suspend(() => {
          subscriptions.active = false
          return unregister
        })
    )
  )
  const openHints = Effect.gen(function* () {
    yield* client.onWrite(() => written.openUnsafe())
    yield* activate
    return Stream.merge(
      subscriptions.hints,
      Stream.fromEffectDrain(Effect.all([follow, renew], { concurrency: 2, discard: true }))
    )
  })

  return {
    recordChanges: (ids) => (ids.length === 0 ? Effect.void : table.writeIfWatched(ids)),
    recordChangesForAll: (ids) => (ids.length === 0 ? Effect.void : table.write(ids)),
    notify: (ids, kind) => subscriptions.notify(ids, kind),
    notifyLocal: (ids) => subscriptions.notify(ids, "end"),
    notifyAll: (ids) => subscriptions.notifyAll(ids),
    subscribe: (ids, until) =>
      Effect.suspend(() => {
        subscriptions.add(ids, until)
        return subscriptions.active ? register : Effect.void
      }),
    unsubscribe: (ids) => subscriptions.remove(ids),
    hints: Stream.unwrap(openHints),
    trim: Effect.andThen(table.removeOld, removeOld)
  }
}
