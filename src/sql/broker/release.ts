/**
 * Puts claimed messages back into their queues, or parks them.
 */
import { Effect } from "effect"
import type { Batch, Release } from "../../BrokerDriver.ts"
import * as defaults from "../../internal/defaults.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { DELAYED, PARKED, READY, seqOf } from "./MessageRow.ts"

/** The messages that were put back. */
export interface Released {
  readonly queues: ReadonlySet<string>
  /** Milliseconds until the first of them is due. */
  readonly firstMillis: number
}

/** Ends claims. Both operations need a transaction, and skip handles that hold no message. */
export interface ReleaseOperations {
  readonly release: (releases: Batch<Release>) => Effect.Effect<Released, StoreError>
  readonly reject: (
    rejections: Batch<{ readonly handle: string; readonly reason: string }>
  ) => Effect.Effect<void, StoreError>
}

interface HeldRow {
  readonly seq: number
  readonly queue: string
  readonly claim: string
  readonly waits_since: number
}

const releaseColumns = { seq: "integer", delay: "integer", waits_since: "integer", body: "text" } as const

const rejectColumns = { seq: "integer", reason: "text" } as const

/** Releases and rejects over one database. */
export const makeRelease = ({
  batchedUpdate,
  dialect: { byIndex, forUpdate, inList, list, now },
  reader,
  run,
  table
}: Database): ReleaseOperations => {
  const selectHeld = `SELECT seq, queue, claim, COALESCE(waits_since, due_at) AS waits_since FROM ${byIndex(table("messages"))}
    WHERE ${inList("seq", "integer")} AND claim IS NOT NULL ORDER BY seq ${forUpdate}`
  const readHeld = reader<HeldRow>("messages", {
    seq: Row.integer,
    queue: Row.text,
    claim: Row.text,
    waits_since: Row.integer
  })
  const matchBySeq = { where: "t.seq = batch.seq", key: ["seq", "integer"], returning: ["seq"] } as const
  const updateReleased = batchedUpdate({
    table: "messages",
    columns: releaseColumns,
    set: {
      state: `CASE WHEN batch.delay > 0 THEN ${DELAYED} ELSE ${READY} END`,
      wake_at: `CASE WHEN batch.delay > 0 THEN ${now} + batch.delay END`,
      // behind what becomes due meanwhile, also where the age is kept: otherwise messages that no worker can run would
      // be claimed before all others, again and again
      due_at: `${now} + batch.delay`,
      waits_since: "batch.waits_since",
      claim: "NULL",
      body: "COALESCE(batch.body, t.body)"
    },
    ...matchBySeq
  })
  const updateRejected = batchedUpdate({
    table: "messages",
    columns: rejectColumns,
    set: {
      state: String(PARKED),
      wake_at: `${now} + ${defaults.deadLetterRetentionMillis}`,
      claim: "NULL",
      reason: "batch.reason"
    },
    ...matchBySeq
  })

  /** Returns the messages that claims hold, by their handles, and locks them. */
  const findHeld = (items: ReadonlyArray<{ readonly handle: string }>) =>
    Effect.map(
      Effect.flatMap(run(selectHeld, [list(items.map(({ handle }) => seqOf(handle)))]), readHeld),
      (rows) => new Map(rows.map((row) => [row.claim, row]))
    )

  return {
    release: (releases) =>
      Effect.flatMap(findHeld(releases), (held) => {
        const queues = new Set<string>()
        let firstMillis = Infinity
        const rows: Array<BatchRow<typeof releaseColumns>> = []
        for (const { afterMillis, body, handle, preserveDueTime } of releases) {
          const row = held.get(handle)
          // the first of two releases counts
          if (row === undefined || !held.delete(handle)) continue
          queues.add(row.queue)
          firstMillis = Math.min(firstMillis, afterMillis)
          rows.push({
            seq: row.seq,
            delay: toMillis(afterMillis),
            waits_since: preserveDueTime === true ? row.waits_since : null,
            body
          })
        }
        return Effect.as(updateReleased(rows), { queues, firstMillis })
      }),
    reject: (rejections) =>
      Effect.flatMap(findHeld(rejections), (held) => {
        const rows: Array<BatchRow<typeof rejectColumns>> = []
        for (const { handle, reason } of rejections) {
          const row = held.get(handle)
          if (row !== undefined && held.delete(handle)) rows.push({ seq: row.seq, reason })
        }
        return Effect.asVoid(updateRejected(rows))
      })
  }
}
