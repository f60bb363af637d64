/**
 * Removes messages that are done.
 */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import { distinctBatches } from "../distinctBatches.ts"
import { seqOf } from "./MessageRow.ts"

/** Acks over one database; returns whether each handle held its message. Needs a transaction. */
export const makeAck = ({
  deleteByKeys,
  dialect: { inList, list }
}: Database): ((handles: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>) => {
  const remove = deleteByKeys<number>({
    table: "messages",
    key: ["seq", "integer"],
    and: inList("claim", "text")
  })
  return Effect.fnUntraced(function* (
    handles: Batch<string>
  ): Effect.fn.Return<ReadonlyArray<boolean>, StoreError> {
    const answers = handles.map(() => false)
    // the statement returns messages, not claims: a lapsed claim and the one that took its message over have the same
    for (const batch of distinctBatches(handles, (handle) => String(seqOf(handle)))) {
      const claims = batch.map(({ item }) => item)
      const removed = new Set(yield* remove(claims.map(seqOf), [list(claims)]))
      for (const { index, item } of batch) answers[index] = removed.has(seqOf(item))
    }
    return answers
  })
}
