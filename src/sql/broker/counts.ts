/**
 * Counts the messages of queues.
 */
import { Effect } from "effect"
import type { Batch, QueueCounts } from "../../BrokerDriver.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { selectFirstLane, type SqlLanes } from "./lanes.ts"
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
  /** The name of a lane of any queue; NULL if there is none. */
  readonly lane: string | null
}

/** Counts over one database, all queues in one statement. A message whose delay or lease is over counts as ready. */
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
  const indexed = byIndex(messages, "messages_ready")
  const count = (where: string, from = messages): string =>
    `(SELECT COUNT(*) FROM ${from} WHERE queue = batch.queue AND ${where})`
  const select = batched(
    { queue: "text" },
    (batch) => `SELECT batch.queue AS queue,
        ${now} AS now,
        ${count(`state = ${READY}`, indexed)} AS n_ready,
        ${count(`wake_at <= ${now} AND state <> ${PARKED}`)} AS n_due,
        ${count(`wake_at > ${now} AND state = ${DELAYED}`)} AS n_delayed,
        ${count(`wake_at > ${now} AND state = ${CLAIMED}`)} AS n_claimed,
        ${count(`wake_at > ${now} AND state = ${PARKED}`)} AS n_parked,
        (${selectFirstLane(indexed)}) AS lane
      FROM ${batch} WHERE batch.queue IS NOT NULL`
  )
  const read = reader<CountsRow>("messages", {
    queue: Row.text,
    now: Row.integer,
    n_ready: Row.integer,
    n_due: Row.integer,
    n_delayed: Row.integer,
    n_claimed: Row.integer,
    n_parked: Row.integer,
    lane: Row.orNull(Row.text)
  })
  const countAll = (names: ReadonlyArray<string>) =>
    Effect.flatMap(select(names.map((queue) => ({ queue }))), read)
  return Effect.fnUntraced(function* (
    queues: Batch<string>
  ): Effect.fn.Return<ReadonlyArray<QueueCounts>, StoreError> {
    const rows = yield* countAll([...new Set(queues)])
    const inLanes = rows.some(({ lane }) => lane !== null) ? yield* lanes.list(queues) : []
    const laneRows = inLanes.length === 0 ? [] : yield* countAll(inLanes.map(Lanes.encode))
    const dueSince = yield* oldest(
      rows.filter((row) => row.n_ready > 0).map(({ queue }) => queue),
      rows.filter((row) => row.n_due > 0).map(({ queue }) => queue)
    )
    const found = new Map(rows.map((row) => [row.queue, row]))
    return queues.map((queue) => {
      const row = found.get(queue)!
      const setAside = laneRows
        .filter((lane) => Lanes.queueOf(lane.queue) === queue)
        .reduce((sum, { n_ready }) => sum + n_ready, 0)
      return {
        ready: row.n_ready + row.n_due,
        delayed: row.n_delayed,
        claimed: row.n_claimed,
        ...(setAside > 0 && { setAside }),
        ...(row.n_parked > 0 && { parked: row.n_parked }),
        oldestMillis: Math.max(0, row.now - (dueSince.get(queue) ?? row.now))
      }
    })
  })
}
