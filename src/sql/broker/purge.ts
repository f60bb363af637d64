/**
 * Removes messages that no claim holds.
 */
import { Effect } from "effect"
import type { PurgedMessage } from "../../BrokerDriver.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import type { SqlLanes } from "./lanes.ts"
import { CLAIM_ORDER, DELAYED, PARKED, READY } from "./MessageRow.ts"

interface PurgedRow extends PurgedMessage {
  readonly seq: number
}

const columns = "seq, id, incarnation, generation"

/** Purges a queue over one database, at most `limit` messages, and returns them. Needs a transaction. */
export const makePurge = (
  { deleteByKeys, dialect: { now, skipLocked }, reader, run, table }: Database,
  lanes: SqlLanes
): ((queue: string, limit: number) => Effect.Effect<ReadonlyArray<PurgedMessage>, StoreError>) => {
  const messages = table("messages")
  // ordered, so that the planner uses an index although it expects many matches
  const selectReady = `SELECT ${columns} FROM ${messages} WHERE state = ${READY} AND queue = ?
    ${CLAIM_ORDER} LIMIT ? ${skipLocked}`
  const selectWaiting = `SELECT ${columns} FROM ${messages}
    WHERE queue = ? AND wake_at IS NOT NULL AND (state IN (${DELAYED}, ${PARKED}) OR wake_at <= ${now})
    ORDER BY wake_at LIMIT ? ${skipLocked}`
  const remove = deleteByKeys<number>({ table: "messages", key: ["seq", "integer"] })
  const read = reader<PurgedRow>("messages", {
    seq: Row.integer,
    id: Row.text,
    incarnation: Row.text,
    generation: Row.integer
  })

  return Effect.fnUntraced(function* (
    queue: string,
    limit: number
  ): Effect.fn.Return<ReadonlyArray<PurgedMessage>, StoreError> {
    const found: Array<PurgedRow> = []
    const add = (select: string, queue: string) =>
      Effect.suspend(() => {
        const left = limit - found.length
        return left <= 0
          ? Effect.void
          : Effect.map(Effect.flatMap(run(select, [queue, left]), read), (rows) => found.push(...rows))
      })
    yield* add(selectReady, queue)
    yield* add(selectWaiting, queue)
    if (found.length < limit) {
      for (const lane of yield* lanes.list([queue])) yield* add(selectReady, Lanes.encode(lane))
    }
    yield* remove(found.map(({ seq }) => seq))
    return found.map(({ generation, id, incarnation }) => ({ id, incarnation, generation }))
  })
}
