/**
 * Counts the messages of queues.
 */
import { Effect } from "effect"
import type { Batch, QueueCounts } from "../../BrokerDriver.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { SqlLanes } from "./lanes.ts"
import { CLAIMED, DELAYED, PARKED, READY } from "./MessageRow.ts"
import { makeOldest } from "./oldest.ts"

interface CountsRow {
  readonly queue: string
  readonly now: number
  readonly n_ready: number
  /** Messages whose delay or lease is over, and that no claim has made ready yet. */
  readonly n_due: number
  readonly n_delayed: number
  readonly n_claimed: number
  readonly n_parked: number
}

/**
 * Counts over one database, all queues and their lanes in one statement. A message whose delay or lease is over counts as
 * ready.
 */
export const makeCounts = (
  database: Database,
  lanes: SqlLanes
): ((queues: Batch<string>) => Effect.Effect<ReadonlyArray<QueueCounts>, StoreError>) => {
  const {
    batched,
    dialect: { byIndex, now },
    reader,
    table
  } = database
  const oldest = makeOldest(database)
  const messages = table("messages")
  const count = (where: string, from = messages): string =>
    `(SELECT COUNT(*) FROM ${from} WHERE queue = batch.queue AND ${where})`
  const select = batched(
    { queue: "text" },
    (batch) => `SELECT batch.queue AS queue,
        ${now} AS now,
        ${count(`state = ${READY}`, byIndex(messages, "messages_ready"))} AS n_ready,
        ${count(`wake_at <= ${now} AND state <> ${PARKED}`)} AS n_due,
        ${count(`wake_at > ${now} AND state = ${DELAYED}`)} AS n_delayed,
        ${count(`wake_at > ${now} AND state = ${CLAIMED}`)} AS n_claimed,
        ${count(`wake_at > ${now} AND state = ${PARKED}`)} AS n_parked
      FROM ${batch} WHERE batch.queue IS NOT NULL`
  )
  const read = reader<CountsRow>("messages", {
    queue: Row.text,
    now: Row.integer,
    n_ready: Row.integer,
    n_due: Row.integer,
    n_delayed: Row.integer,
    n_claimed: Row.integer,
    n_parked: Row.integer
  })
  return Effect.fnUntraced(function* (
    queues: Batch<string>
  ): Effect.fn.Return<ReadonlyArray<QueueCounts>, StoreError> {
    const setAside = yield* lanes.list(queues)
    const names = [...new Set(queues), ...setAside.map(Lanes.encode)]
    const rows = yield* Effect.flatMap(select(names.map((queue) => ({ queue }))), read)
    const dueSince = yield* oldest(
      rows
        .filter((row) => row.n_ready > 0 && Lanes.decode(row.queue) === undefined)
        .map(({ queue }) => queue),
      rows.filter((row) => row.n_due > 0).map(({ queue }) => queue)
    )
    const found = new Map(rows.map((row) => [row.queue, row]))
    return queues.map((queue) => {
      const row = found.get(queue)!
      const inLanes = setAside
        .filter((lane) => lane.queue === queue)
        .reduce((sum, lane) => sum + (found.get(Lanes.encode(lane))?.n_ready ?? 0), 0)
      return {
        ready: row.n_ready + row.n_due,
        delayed: row.n_delayed,
        claimed: row.n_claimed,
        ...(inLanes > 0 && { setAside: inLanes }),
        ...(row.n_parked > 0 && { parked: row.n_parked }),
        oldestMillis: Math.max(0, row.now - (dueSince.get(queue) ?? row.now))
      }
    })
  })
}
