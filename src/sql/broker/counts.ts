/**
 * Counts the messages of queues.
 */
import { Effect } from "effect"
import type { Batch, QueueCounts } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { CLAIMED, DELAYED, PARKED, READY } from "./MessageRow.ts"

interface CountsRow {
  readonly n_ready: number
  readonly n_delayed: number
  readonly n_claimed: number
  readonly n_parked: number
}

/** Counts over one database. A message whose delay or lease is over counts as ready. */
export const makeCounts = ({
  dialect: { now },
  reader,
  run,
  table
}: Database): ((queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, StoreError>) => {
  const messages = table("messages")
  const select = `SELECT
      (SELECT COUNT(*) FROM ${messages} WHERE state = ${READY} AND queue = ?)
        + (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at <= ${now} AND state <> ${PARKED}) AS n_ready,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${now} AND state = ${DELAYED}) AS n_delayed,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${now} AND state = ${CLAIMED}) AS n_claimed,
      (SELECT COUNT(*) FROM ${messages} WHERE queue = ? AND wake_at > ${now} AND state = ${PARKED}) AS n_parked`
  const read = reader<CountsRow>("messages", {
    n_ready: Row.integer,
    n_delayed: Row.integer,
    n_claimed: Row.integer,
    n_parked: Row.integer
  })
  return (queues) =>
    Effect.forEach(queues, (queue) =>
      Effect.map(Effect.flatMap(run(select, [queue, queue, queue, queue, queue]), read), ([counts]) => ({
        ready: counts!.n_ready,
        delayed: counts!.n_delayed,
        claimed: counts!.n_claimed,
        ...(counts!.n_parked > 0 && { parked: counts!.n_parked })
      }))
    )
}
