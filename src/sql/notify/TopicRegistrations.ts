/**
 * Registers this process for topics in the table `listeners`, where other processes see which topics to notify.
 */
import { Effect, type Scope } from "effect"
import type { Database, StoreError } from "../Database.ts"
import { sleep } from "../sleep.ts"
import { type Channel, ECHO } from "./notificationProtocol.ts"
import { ECHO_MILLIS, type NotificationReceiver } from "./NotificationReceiver.ts"

/** How long a registration is valid. It is renewed with every echo. */
const REGISTERED_MILLIS = 30_000

/** Registrations that one `trim` removes at most. */
const MAX_REMOVED = 1000

interface Registration {
  isWanted: () => boolean
  /** Until when other processes see it, by the monotonic clock of this process. */
  validUntil: number
}

/** The registrations of one process. */
export interface TopicRegistrations {
  /** Registers for topics for as long as they are wanted. Hints of later commits are received. */
  readonly registerTopics: (
    topics: Iterable<string>,
    isWanted: () => boolean
  ) => Effect.Effect<void, StoreError>
  /** Removes the registrations of processes that are gone. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** Makes the registrations of one process, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  { batched, dialect, outsideTransaction, run, table }: Database,
  channel: Channel,
  receiver: NotificationReceiver
): Effect.fn.Return<TopicRegistrations, never, Scope.Scope> {
  const { incoming, now, onConflictUpdate } = dialect
  const listeners = table("listeners")
  const upsert = batched(
    { id: "text", topic: "text" },
    (batch) => `INSERT INTO ${listeners} (id, topic, until)
      SELECT batch.id, batch.topic, ${now} + ${REGISTERED_MILLIS} FROM ${batch} WHERE batch.id IS NOT NULL
      ${onConflictUpdate("id, topic")} until = ${incoming("until")}`
  )
  const removeOwn = `DELETE FROM ${listeners} WHERE id = ?`
  const removeOld = `DELETE FROM ${listeners} WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM ${listeners} WHERE until <= ${now} LIMIT ${MAX_REMOVED} FOR UPDATE SKIP LOCKED
  ))`
  const notifySelf = `SELECT pg_notify(?, ?), set_config('synchronous_commit', 'off', true)`

  const registrations = new Map<string, Registration>()

  /** Registers, or renews registrations that are a third over: all of them at once. */
  const renew = (topics: Iterable<string>): Effect.Effect<void, StoreError> =>
    Effect.suspend(() => {
      const sentAt = performance.now()
      const due = Array.from(topics, (topic) => [topic, registrations.get(topic)!] as const).filter(
        ([, { validUntil }]) => sentAt >= validUntil - REGISTERED_MILLIS + ECHO_MILLIS
      )
      if (due.length === 0) return Effect.void
      const rows = due.map(([topic]) => ({ id: channel.source, topic }))
      return Effect.map(outsideTransaction(upsert(rows)), () => {
        // other processes did not notify this one in the meantime
        const now = performance.now()
        const hadGap = due.some(([, { validUntil }]) => validUntil !== -Infinity && now > validUntil)
        for (const [, registration] of due) {
          registration.validUntil = Math.max(registration.validUntil, sentAt + REGISTERED_MILLIS)
        }
        if (hadGap) receiver.resync()
      })
    })

  const want = (topic: string, isWanted: () => boolean): void => {
    const registration = registrations.get(topic)
    if (registration === undefined) {
      registrations.set(topic, { isWanted, validUntil: -Infinity })
      return
    }
    const wasWanted = registration.isWanted
    if (wasWanted !== isWanted)
      registration.isWanted = wasWanted() ? () => wasWanted() || isWanted() : isWanted
  }

  yield* Effect.gen(function* () {
    while (true) {
      yield* sleep(ECHO_MILLIS)
      if (!receiver.hasSubscribers()) continue
      yield* renew([...registrations].flatMap(([topic, { isWanted }]) => (isWanted() ? topic : [])))
      const echo = JSON.stringify({ source: channel.source, topic: ECHO, ids: [] })
      yield* outsideTransaction(run(notifySelf, [channel.name, echo]))
    }
  }).pipe(
    Effect.catchCause((cause) =>
      Effect.logDebug("Failed to renew registrations for notifications; trying again", cause)
    ),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    registrations.size === 0
      ? Effect.void
      : Effect.ignore(outsideTransaction(run(removeOwn, [channel.source])))
  )

  return {
    registerTopics: (topics, isWanted) =>
      Effect.suspend(() => {
        const wanted = [...topics]
        for (const topic of wanted) want(topic, isWanted)
        return renew(wanted)
      }),
    trim: Effect.asVoid(run(removeOld))
  }
})
