/**
 * Sends notifications: those of a topic one delivery at a time, with all ids that were collected meanwhile.
 */
import { Effect, FiberSet, type Scope } from "effect"
import type { StoreError } from "../Database.ts"

/** The bytes of one payload. PostgreSQL allows 8,000. */
const MAX_PAYLOAD_BYTES = 7500
/** The bytes that are left for the topic, the source and the braces. */
const ENVELOPE_BYTES = 400
/** With more ids than this, a topic's subscribers resync instead. */
const MAX_IDS = 10_000

/** Splits ids into payloads, at least one. */
const payloadsOf = (source: string, topic: string, ids: ReadonlyArray<string>): Array<string> => {
  const payloads: Array<string> = []
  let part: Array<string> = []
  let bytes = 0
  const close = () => payloads.push(JSON.stringify({ source, topic, ids: part }))
  for (const id of ids) {
    const size = Buffer.byteLength(JSON.stringify(id)) + 1
    if (bytes + size > MAX_PAYLOAD_BYTES - ENVELOPE_BYTES) {
      close()
      part = []
      bytes = 0
    }
    part.push(id)
    bytes += size
  }
  close()
  return payloads
}

/**
 * Delivers payloads to the other processes that have registered for the topic, and returns when the next ones may follow.
 * It drops them if none has registered after it was called.
 */
export type Deliver = (
  topic: string,
  payloads: () => ReadonlyArray<string>
) => Effect.Effect<void, StoreError>

/** Notifies the other processes that have registered for a topic. */
export type NotificationSender = (topic: string, ids: ReadonlyArray<string>) => void

/** Makes a sender, until the scope closes. `source` is the id of this process. */
export const make = Effect.fnUntraced(function* (
  source: string,
  deliver: Deliver
): Effect.fn.Return<NotificationSender, never, Scope.Scope> {
  /** The ids to be sent, of each topic that a fiber is sending. */
  const pending = new Map<string, Set<string>>()
  const fork = yield* FiberSet.makeRuntime()

  const sendPending = Effect.fnUntraced(function* (topic: string) {
    for (let ids = pending.get(topic)!; ids.size > 0; ids = pending.get(topic)!) {
      const taken = ids.size < MAX_IDS ? [...ids] : []
      pending.set(topic, new Set())
      yield* deliver(topic, () => payloadsOf(source, topic, taken)).pipe(
        Effect.catchCause((cause) =>
          Effect.logDebug("Failed to notify other processes; the hint is lost", cause)
        )
      )
    }
    pending.delete(topic)
  })

  return (topic, ids) => {
    const collected = pending.get(topic)
    if (collected === undefined) {
      pending.set(topic, new Set(ids))
      fork(sendPending(topic))
    } else if (collected.size < MAX_IDS) for (const id of ids) collected.add(id)
  }
})
