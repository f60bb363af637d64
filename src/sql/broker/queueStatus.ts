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

/** Reads the status of queues over one database. */
export const makeQueueStatus = ({
  dialect: { now },
  reader,
  run,
  table
}: Database): ((queues: Batch<string>) => Effect.Effect<QueueStatus, StoreError>) => {
  const messages = table("messages")
  // the first entry of an index: for an EXISTS of which the planner expects many matches, it reads the table
  const firstReady = `SELECT seq FROM ${messages} WHERE state = ${READY} AND queue = ? ${CLAIM_ORDER} LIMIT 1`
  const firstDue = `SELECT wake_at FROM ${messages} WHERE wake_at <= ${now} AND queue = ? ORDER BY wake_at LIMIT 1`
  const select = `SELECT
      ${now} AS now,
      CASE WHEN (${firstReady}) IS NULL THEN 0 ELSE 1 END AS ready,
      CASE WHEN (${firstDue}) IS NULL THEN 0 ELSE 1 END AS due,
      (SELECT wake_at FROM ${messages} WHERE wake_at > ${now} AND queue = ? ORDER BY wake_at LIMIT 1) AS next`
  const read = reader<StatusRow>("messages", {
    now: Row.integer,
    ready: Row.flag,
    due: Row.flag,
    next: Row.orNull(Row.integer)
  })

  return (queues) =>
    Effect.map(
      Effect.forEach(queues, (queue) => Effect.flatMap(run(select, [queue, queue, queue]), read)),
      (found) => {
        let ready = false
        let due = false
        let nextMillis: number | undefined
        for (const [row] of found) {
          ready ||= row!.ready === 1
          due ||= row!.due === 1
          if (row!.next !== null) nextMillis = Math.min(row!.next - row!.now, nextMillis ?? Infinity)
        }
        return { ready, due, nextMillis }
      }
    )
}
