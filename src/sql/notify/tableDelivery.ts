/**
 * Delivers notifications by rows of the table `notifications`, which their processes read and remove.
 *
 * A row is written only for a process that has registered. Which topics have registrations is read at most once in some
 * seconds, for all topics at once, and only while there is something to deliver: so a process whose tasks nobody waits for
 * writes nothing. A topic that has a registration is delivered without that read, until a row finds no process.
 */
import { Effect, Semaphore } from "effect"
import type { Database } from "../Database.ts"
import * as Row from "../Row.ts"
import { sleep } from "../sleep.ts"
import type { Deliver } from "./NotificationSender.ts"

/** How often registrations are read at most. */
export const READ_REGISTRATIONS_MILLIS = 2500
/** The pause after a delivery: the next one has all ids of that time. Readers look no sooner. */
const PAUSE_MILLIS = 5
/** The numbers of rows are chosen at random: no counter has to be shared, and none tells an order. */
const NUMBERS = 2 ** 48

/** The topics that other processes have registered for. */
const makeRegisteredTopics = (
  { dialect, reader, readsInCallerTransaction, run, table }: Database,
  source: string
) => {
  const select = `SELECT DISTINCT topic FROM ${table("listeners")} WHERE until > ${dialect.now} AND id <> ?`
  const read = reader<{ readonly topic: string }>("listeners", { topic: Row.text })
  const topics = new Set<string>()
  const reading = Semaphore.makeUnsafe(1)
  /** When the last read began, and the last one that succeeded. */
  let sentAt = -Infinity
  let readAt = -Infinity

  const readAll = Effect.gen(function* () {
    const pause = sentAt + READ_REGISTRATIONS_MILLIS - performance.now()
    if (pause > 0) yield* sleep(pause)
    const began = (sentAt = performance.now())
    const rows = yield* readsInCallerTransaction(Effect.flatMap(run(select, [source]), read))
    readAt = began
    topics.clear()
    for (const { topic } of rows) topics.add(topic)
  })
  return {
    topics,
    /** Returns once the registrations were read after it was called. One read is enough for all that wait. */
    refresh: Effect.suspend(() => {
      const askedAt = performance.now()
      return reading.withPermit(Effect.suspend(() => (readAt >= askedAt ? Effect.void : readAll)))
    })
  }
}

/** Makes the delivery by the table. `source` is the id of this process. */
export const make = (db: Database, source: string): Deliver => {
  const { now } = db.dialect
  const { refresh, topics } = makeRegisteredTopics(db, source)
  const insert = db.batched(
    { nr: "integer", payload: "text" },
    (batch) => `INSERT INTO ${db.table("notifications")} (id, at, nr, payload)
      SELECT listener.id, ${now}, batch.nr, batch.payload
      FROM ${batch} JOIN ${db.table("listeners")} AS listener
        ON listener.topic = ? AND listener.until > ${now} AND listener.id <> ?
      WHERE batch.nr IS NOT NULL
      RETURNING id`
  )
  /** Writes rows, and returns whether another process has registered for the topic. */
  const write = (topic: string, payloads: ReadonlyArray<string>) => {
    const rows = payloads.map((payload) => ({ nr: Math.floor(Math.random() * NUMBERS), payload }))
    return Effect.map(
      db.outsideTransaction(db.retryOnDeadlock(insert(rows, [topic, source]))),
      (written) => written.length > 0
    )
  }

  return Effect.fnUntraced(function* (topic, payloads) {
    if (!topics.has(topic)) yield* refresh
    if (!topics.has(topic)) return
    if (yield* write(topic, payloads())) yield* sleep(PAUSE_MILLIS)
    else topics.delete(topic)
  })
}
