/**
 * Removes messages that no claim holds.
 */
import { Effect } from "effect"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { DELAYED, READY } from "./MessageRow.ts"

/** Purges a queue over one database, at most `limit` messages; returns their ids. Needs a transaction. */
export const makePurge = ({
  deleteByKeys,
  dialect: { now, skipLocked },
  reader,
  run,
  table
}: Database): ((queue: string, limit: number) => Effect.Effect<ReadonlyArray<string>, StoreError>) => {
  const messages = table("messages")
  const selectReady = `SELECT seq, id FROM ${messages} WHERE state = ${READY} AND queue = ? LIMIT ? ${skipLocked}`
  const selectWaiting = `SELECT seq, id FROM ${messages}
    WHERE queue = ? AND wake_at IS NOT NULL AND (state = ${DELAYED} OR wake_at <= ${now}) LIMIT ? ${skipLocked}`
  const remove = deleteByKeys<number>({ table: "messages", key: ["seq", "integer"] })
  const read = reader<{ readonly seq: number; readonly id: string }>("messages", {
    seq: Row.integer,
    id: Row.text
  })

  return Effect.fnUntraced(function* (
    queue: string,
    limit: number
  ): Effect.fn.Return<ReadonlyArray<string>, StoreError> {
    const found: Array<{ readonly seq: number; readonly id: string }> = []
    for (const select of [selectReady, selectWaiting]) {
      const left = limit - found.length
      if (left > 0) found.push(...(yield* Effect.flatMap(run(select, [queue, left]), read)))
    }
    yield* remove(found.map(({ seq }) => seq))
    return found.map(({ id }) => id)
  })
}
