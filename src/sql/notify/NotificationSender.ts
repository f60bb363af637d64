/**
 * Sends notifications of PostgreSQL: one statement a topic at a time, with all ids that were collected meanwhile.
 */
import { Effect, FiberSet, type Scope } from "effect"
import type { Database } from "../Database.ts"
import { sleep } from "../sleep.ts"
import type { Channel } from "./notificationProtocol.ts"

/** The pause before the registrations of a topic are read again if there were none. */
const UNREGISTERED_PAUSE_MILLIS = 50
/** The bytes of one notification. PostgreSQL allows 8,000. */
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

/** Notifies the other processes that have registered for a topic. */
export type NotificationSender = (topic: string, ids: ReadonlyArray<string>) => void

/** Makes the sender of a channel, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  { dialect, outsideTransaction, run, table }: Database,
  channel: Channel
): Effect.fn.Return<NotificationSender, never, Scope.Scope> {
  const selectRegistered = `SELECT 1 AS one FROM ${table("listeners")}
    WHERE topic = ? AND until > ${dialect.now} AND id <> ? LIMIT 1`
  const notifyRegistered = `SELECT pg_notify(?, payload), set_config('synchronous_commit', 'off', true)
    FROM unnest(?::text[]) AS payloads (payload) WHERE EXISTS (${selectRegistered})`

  /** The ids to be sent, of each topic that a fiber is sending. */
  const pending = new Map<string, Set<string>>()
  /** The topics without a registration of another process when they were last read. */
  const unregistered = new Set<string>()
  const fork = yield* FiberSet.makeRuntime()

  const isRegistered = (topic: string) =>
    Effect.map(run(selectRegistered, [topic, channel.source]), (found) => found.length > 0)
  /** Sends ids, and returns whether another process has registered for the topic. */
  const send = (topic: string, ids: ReadonlySet<string>) => {
    const payloads = payloadsOf(channel.source, topic, ids.size < MAX_IDS ? [...ids] : [])
    return Effect.map(
      run(notifyRegistered, [channel.name, payloads, topic, channel.source]),
      (sent) => sent.length > 0
    )
  }
  const sendIfRegistered = (topic: string, ids: ReadonlySet<string>) =>
    Effect.map(
      outsideTransaction(
        unregistered.has(topic)
          ? Effect.flatMap(isRegistered(topic), (found) => (found ? send(topic, ids) : Effect.succeed(false)))
          : send(topic, ids)
      ),
      (found) => {
        if (found) unregistered.delete(topic)
        else unregistered.add(topic)
      }
    )

  const sendPending = Effect.fnUntraced(function* (topic: string) {
    for (let ids = pending.get(topic)!; ids.size > 0; ids = pending.get(topic)!) {
      pending.set(topic, new Set())
      yield* sendIfRegistered(topic, ids).pipe(
        Effect.catchCause((cause) =>
          Effect.logDebug("Failed to notify other processes; the hint is lost", cause)
        )
      )
      if (unregistered.has(topic)) yield* sleep(UNREGISTERED_PAUSE_MILLIS)
    }
    pending.delete(topic)
    if (unregistered.size > MAX_IDS) unregistered.clear()
  })

  return (topic, ids) => {
    const collected = pending.get(topic)
    if (collected === undefined) {
      pending.set(topic, new Set(ids))
      fork(sendPending(topic))
    } else if (collected.size < MAX_IDS) for (const id of ids) collected.add(id)
  }
})
