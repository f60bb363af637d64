/**
 * Reads whether a claim of queues is worthwhile, without a lock.
 */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { CLAIM_ORDER, READY } from "./MessageRow.ts"

/** The status of some queues. */
export interface QueueStatus {
  /** A message is ready. */
  readonly ready: boolean
  /** The delay or the lease of a message is over: the next claim makes it ready. */
  readonly due: boolean
  /** Milliseconds until the next delay or lease is over; `undefined` if there is none. */
  readonly nextMillis: number | undefined
}

interface StatusRow {
  readonly now: number
  readonly ready: 0 | 1
  readonly due: 0 | 1
  readonly next: number | null
}

/** Reads the status of queues over one database: of all of them in one statement, as far as one holds them. */
export const makeQueueStatus = ({
  batched,
  dialect: { now },
  reader,
  run,
  table
}: Database): ((queues: Batch<string>) => Effect.Effect<QueueStatus, StoreError>) => {
  const messages = table("messages")
  /** The columns of a queue. */
  const statusOf = (queue: string): string => {
    // the first entry of an index: for an EXISTS of which the planner expects many matches, it reads the table
    const ready = `SELECT seq FROM ${messages} WHERE state = ${READY} AND queue = ${queue} ${CLAIM_ORDER} LIMIT 1`
    const due = `SELECT wake_at FROM ${messages} WHERE wake_at <= ${now} AND queue = ${queue} ORDER BY wake_at LIMIT 1`
    const next = `SELECT wake_at FROM ${messages} WHERE wake_at > ${now} AND queue = ${queue} ORDER BY wake_at LIMIT 1`
    return `${now} AS now, CASE WHEN (${ready}) IS NULL THEN 0 ELSE 1 END AS ready,
      CASE WHEN (${due}) IS NULL THEN 0 ELSE 1 END AS due, (${next}) AS next`
  }
  const selectOne = `SELECT ${statusOf("?")}`
  const selectMany = batched(
    { queue: "text" },
    (batch) => `SELECT ${statusOf("batch.queue")} FROM ${batch} WHERE batch.queue IS NOT NULL`
  )
  const read = reader<StatusRow>("messages", {
    now: Row.integer,
    ready: Row.flag,
    due: Row.flag,
    next: Row.orNull(Row.integer)
  })
  const select = (queues: Batch<string>) =>
    queues.length === 1
      ? run(selectOne, [queues[0], queues[0], queues[0]])
      : selectMany(queues.map((queue) => ({ queue })))

  return (queues) =>
    Effect.map(Effect.flatMap(select(queues), read), (rows) => {
      const nexts = rows.flatMap((row) => (row.next === null ? [] : row.next - row.now))
      return {
        ready: rows.some((row) => row.ready === 1),
        due: rows.some((row) => row.due === 1),
        nextMillis: nexts.length === 0 ? undefined : nexts.reduce((least, millis) => Math.min(least, millis))
      }
    })
}
