/**
 * Receives notifications by reading the rows of this process in the table `notifications`, and removing them.
 *
 * The table is read only while a topic is wanted: while somebody waits every 5 to 250 millis, the more seldom the longer
 * nothing has come, and otherwise every 5 seconds. What was read is removed by its key, since the order of rows says
 * nothing: a statement that began earlier may commit later. Rows older than half a minute are left out, so that a read does
 * not pass through rows that were removed long ago and that the database keeps for an old snapshot.
 */
import { Effect, Latch, type Scope } from "effect"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { sleep } from "../sleep.ts"
import { decodePayload, type Subscriber } from "./notificationProtocol.ts"
import type { TopicRegistrations } from "./TopicRegistrations.ts"

/** The pause between two reads is this part of the time for which nothing has come, within these bounds. */
const QUIET_PART = 200
const MIN_PAUSE_MILLIS = 5
const MAX_PAUSE_MILLIS = 250
/** The pause while nobody waits. */
const PATIENT_PAUSE_MILLIS = 5000
/** The pause after the first of several reads that failed, and the longest one. */
const RETRY_MILLIS = 50
const MAX_RETRY_MILLIS = 5000
/** Rows of one read, at most. */
const MAX_ROWS = 100
/** How old a row may be that is read, and one that a process has not removed. */
const MAX_AGE_MILLIS = 30_000
const KEPT_MILLIS = 60_000
/** Rows that one `trim` removes at most. */
const MAX_REMOVED = 1000

interface NotificationRow {
  readonly at: number
  readonly nr: number
  readonly payload: string
}

/** The statements on the rows of one process. */
const makeRows = ({ batched, dialect, reader, run, table }: Database, source: string) => {
  const { now } = dialect
  const notifications = table("notifications")
  const select = `SELECT at, nr, payload FROM ${notifications}
    WHERE id = ? AND at > ${now} - ${MAX_AGE_MILLIS} LIMIT ${MAX_ROWS}`
  const decodeRows = reader<NotificationRow>("notifications", {
    at: Row.integer,
    nr: Row.integer,
    payload: Row.text
  })
  const remove = batched(
    { id: "text", at: "integer", nr: "integer" },
    (batch) => `DELETE t FROM ${batch} STRAIGHT_JOIN ${notifications} AS t FORCE INDEX (PRIMARY)
      ON t.id = batch.id AND t.at = batch.at AND t.nr = batch.nr`
  )
  return {
    read: Effect.flatMap(run(select, [source]), decodeRows),
    remove: (rows: ReadonlyArray<NotificationRow>) =>
      remove(rows.map(({ at, nr }) => ({ id: source, at, nr }))),
    removeOwn: run(`DELETE FROM ${notifications} WHERE id = ?`, [source]),
    trim: run(`DELETE FROM ${notifications} WHERE at < ${now} - ${KEPT_MILLIS} LIMIT ${MAX_REMOVED}`)
  }
}

/** The reader of one process. */
export interface NotificationReader {
  /** Receives hints until the scope closes. */
  readonly subscribe: (subscriber: Subscriber) => Effect.Effect<void, never, Scope.Scope>
  readonly hasSubscribers: () => boolean
  /** Tells all subscribers to resync. */
  readonly resync: () => void
  /** Hints that anything of a topic may have changed. */
  readonly hintAll: (topic: string) => void
  /** Looks anew at what is wanted. */
  readonly wake: () => void
  /** Reads often from now on, if somebody waits: hints are likely to come. */
  readonly expectHints: () => void
  /** Reads for as long as topics are wanted. */
  readonly follow: (urgency: TopicRegistrations["urgency"]) => Effect.Effect<never>
  /** Removes the rows of this process. */
  readonly removeOwn: Effect.Effect<void, StoreError>
  /** Removes rows that no process has removed. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** Makes the reader of a process. `source` is its id. */
export const make = (db: Database, source: string): NotificationReader => {
  const rows = makeRows(db, source)
  const subscribers = new Set<Subscriber>()
  const woken = Latch.makeUnsafe(false)
  /** When something came, or was to be expected, by the monotonic clock. */
  let activeAt = 0
  let failures = 0

  const resync = (): void => {
    for (const subscriber of subscribers) subscriber.onResync()
  }
  const receive = (payload: string): void => {
    const notification = decodePayload(payload)
    if (notification === undefined) return
    const { ids, topic } = notification
    if (ids.length === 0) return resync()
    for (const subscriber of subscribers) subscriber.onHint({ topic, ids })
  }
  const remove = (found: ReadonlyArray<NotificationRow>) =>
    db.readsInCallerTransaction(db.retryOnDeadlock(rows.remove(found)))
  /** Reads rows, and passes them on before they are removed. */
  const receiveNext = Effect.map(db.readsInCallerTransaction(rows.read), (found) => {
    if (failures > 0) resync()
    failures = 0
    for (const { payload } of found) receive(payload)
    if (found.length > 0) activeAt = performance.now()
    return found
  })
  const pauseMillis = (urgency: "urgent" | "patient"): number => {
    if (urgency === "patient") return PATIENT_PAUSE_MILLIS
    const quietMillis = performance.now() - activeAt
    return Math.max(MIN_PAUSE_MILLIS, Math.min(quietMillis / QUIET_PART, MAX_PAUSE_MILLIS))
  }
  /** Pauses before the next read. A longer pause ends when somebody begins to wait. */
  const pause = (urgency: "urgent" | "patient" | undefined): Effect.Effect<void> => {
    if (urgency === undefined) return woken.await
    const millis = pauseMillis(urgency)
    return millis > MIN_PAUSE_MILLIS ? Effect.raceFirst(sleep(millis), woken.await) : sleep(millis)
  }

  return {
    subscribe: (subscriber) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => subscribers.add(subscriber)),
          () => Effect.sync(() => subscribers.delete(subscriber))
        )
      ),
    hasSubscribers: () => subscribers.size > 0,
    resync,
    hintAll: (topic) => {
      for (const subscriber of subscribers) subscriber.onHint({ topic, ids: undefined })
    },
    wake: () => woken.openUnsafe(),
    expectHints: () => {
      activeAt = performance.now()
      woken.openUnsafe()
    },
    follow: (urgency) =>
      Effect.gen(function* () {
        let found: ReadonlyArray<NotificationRow> = []
        while (true) {
          const pausing = pause(urgency())
          yield* found.length === 0
            ? pausing
            : Effect.all([remove(found), pausing], { concurrency: 2, discard: true })
          woken.closeUnsafe()
          found = urgency() === undefined ? [] : yield* receiveNext
        }
      }).pipe(
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logDebug("Failed to read notifications; trying again", cause),
            Effect.suspend(() => sleep(Math.min(RETRY_MILLIS * 2 ** failures++, MAX_RETRY_MILLIS)))
          )
        ),
        Effect.forever
      ),
    removeOwn: Effect.asVoid(db.outsideTransaction(rows.removeOwn)),
    trim: Effect.asVoid(rows.trim)
  }
}
