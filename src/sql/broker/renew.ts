/**
 * Renews the leases of claimed messages.
 */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { CLAIMED, seqOf } from "./MessageRow.ts"

/** Renews over one database; returns whether each handle still holds its message. */
export const makeRenew = ({
  batchedUpdate,
  dialect: { now },
  reader
}: Database): ((
  handles: Batch<string>,
  leaseMillis: number
) => Effect.Effect<ReadonlyArray<boolean>, StoreError>) => {
  const update = batchedUpdate({
    table: "messages",
    columns: { seq: "integer", claim: "text", lease: "integer" },
    set: { state: String(CLAIMED), wake_at: `${now} + batch.lease` },
    where: "t.seq = batch.seq AND t.claim = batch.claim",
    key: ["seq", "integer"],
    returning: ["claim"]
  })
  const readClaim = reader<{ readonly claim: string }>("messages", { claim: Row.text })

  return (handles, leaseMillis) => {
    const lease = toMillis(leaseMillis)
    const rows = [...new Set(handles)].map((handle) => ({ seq: seqOf(handle), claim: handle, lease }))
    return Effect.map(Effect.flatMap(update(rows), readClaim), (renewed) => {
      const held = new Set(renewed.map(({ claim }) => claim))
      return handles.map((handle) => held.has(handle))
    })
  }
}
