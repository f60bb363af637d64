/**
 * Counts the messages of queues.
 */
import { Effect } from "effect"
import type { Batch, QueueCounts } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { CLAIMED, DELAYED, PARKED, READY } from "./MessageRow.ts"

interface CountsRow {
  readonly queue: string
  readonly n_ready: number
  readonly n_delayed: number
  readonly n_claimed: number
  readonly n_parked: number
}

/** Counts over one database, all queues in one statement. A message whose delay or lease is over counts as ready. */
export const makeCounts = ({
  batched,
  dialect: { now },
  reader,
  table
}: Database): ((queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, StoreError>) => {
  const count = (where: string): string =>
    `(SELECT COUNT(*) FROM ${table("messages")} WHERE queue = batch.queue AND ${where})`
  const select = batched(
    { queue: "text" },
    (batch) => `SELECT batch.queue AS queue,
        ${count(`state = ${READY}`)} + ${count(`wake_at <= ${now} AND state <> ${PARKED}`)} AS n_ready,
        ${count(`wake_at > ${now} AND state = ${DELAYED}`)} AS n_delayed,
        ${count(`wake_at > ${now} AND state = ${CLAIMED}`)} AS n_claimed,
        ${count(`wake_at > ${now} AND state = ${PARKED}`)} AS n_parked
      FROM ${batch} WHERE batch.queue IS NOT NULL`
  )
  const read = reader<CountsRow>("messages", {
    queue: Row.text,
    n_ready: Row.integer,
    n_delayed: Row.integer,
    n_claimed: Row.integer,
    n_parked: Row.integer
  })
  return (queues) =>
    Effect.map(Effect.flatMap(select([...new Set(queues)].map((queue) => ({ queue }))), read), (rows) => {
      const found = new Map(rows.map((row) => [row.queue, row]))
      return queues.map((queue) => {
        const counts = found.get(queue)!
        return {
          ready: counts.n_ready,
          delayed: counts.n_delayed,
          claimed: counts.n_claimed,
          ...(counts.n_parked > 0 && { parked: counts.n_parked })
        }
      })
    })
}
