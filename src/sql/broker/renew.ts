/**
 * Renews the leases of claimed messages.
 */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { CLAIMED, seqOf } from "./MessageRow.ts"

/**
 * Renews over one database; returns whether each handle still holds its message; `undefined` where another transaction has
 * locked it, such as one that completes the task.
 */
export const makeRenew = ({
  batchedUpdate,
  dialect,
  reader,
  run,
  table
}: Database): ((
  handles: Batch<string>,
  leaseMillis: number
) => Effect.Effect<ReadonlyArray<boolean | undefined>, StoreError>) => {
  const update = batchedUpdate({
    table: "messages",
    columns: { seq: "integer", claim: "text", lease: "integer" },
    set: { state: String(CLAIMED), wake_at: `${dialect.now} + batch.lease` },
    where: "t.seq = batch.seq AND t.claim = batch.claim",
    key: ["seq", "integer"],
    returning: ["claim"],
    skipLocked: true
  })
  const selectClaims = `SELECT claim FROM ${table("messages")} WHERE ${dialect.inList("seq", "integer")}`
  const readClaim = reader<{ readonly claim: string | null }>("messages", { claim: Row.orNull(Row.text) })

  return (handles, leaseMillis) => {
    const lease = toMillis(leaseMillis)
    const rows = [...new Set(handles)].map((handle) => ({ seq: seqOf(handle), claim: handle, lease }))
    return Effect.gen(function* () {
      const renewed = new Set((yield* readClaim(yield* update(rows))).map(({ claim }) => claim))
      const others = rows.filter(({ claim }) => !renewed.has(claim))
      if (others.length === 0) return handles.map(() => true)
      const found = yield* run(selectClaims, [dialect.list(others.map(({ seq }) => seq))])
      const locked = new Set((yield* readClaim(found)).map(({ claim }) => claim))
      return handles.map((handle) => renewed.has(handle) || (locked.has(handle) ? undefined : false))
    })
  }
}
