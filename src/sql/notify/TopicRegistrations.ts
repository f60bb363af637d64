/**
 * Registers this process for topics in the table `listeners`, where other processes see which topics to notify.
 */
import { Effect, type Scope, Semaphore } from "effect"
import type { Database, StoreError } from "../Database.ts"
import { sleep } from "../sleep.ts"
import { type Channel, ECHO } from "./notificationProtocol.ts"
import { ECHO_MILLIS, type NotificationReceiver } from "./NotificationReceiver.ts"

/** How long a registration is valid. It is renewed with every echo. */
const REGISTERED_MILLIS = 30_000

interface Registration {
  isWanted: () => boolean
  /** Until when other processes see it, by the monotonic clock of this process. */
  validUntil: number
}

/** The registrations of one process. */
export interface TopicRegistrations {
  /** Registers for a topic for as long as it is wanted. Hints of later commits are received. */
  readonly registerTopic: (topic: string, isWanted: () => boolean) => Effect.Effect<void, StoreError>
  /** Removes the registrations of processes that are gone. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** Makes the registrations of one process, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  { dialect, outsideTransaction, run, table }: Database,
  channel: Channel,
  receiver: NotificationReceiver
): Effect.fn.Return<TopicRegistrations, never, Scope.Scope> {
  const { incoming, now, onConflictUpdate } = dialect
  const listeners = table("listeners")
  const upsert = `INSERT INTO ${listeners} (id, topic, until) VALUES (?, ?, ${now} + ${REGISTERED_MILLIS})
    ${onConflictUpdate("id, topic")} until = ${incoming("until")}`
  const removeOwn = `DELETE FROM ${listeners} WHERE id = ?`
  const removeOld = `DELETE FROM ${listeners} WHERE until <= ${now}`
  const notifySelf = `SELECT pg_notify(?, ?), set_config('synchronous_commit', 'off', true)`

  const registrations = new Map<string, Registration>()
  const registering = Semaphore.makeUnsafe(1)

  /** Registers, or renews a registration that is a third over. */
  const renew = (topic: string, registration: Registration): Effect.Effect<void, StoreError> =>
    registering.withPermit(
      Effect.suspend(() => {
        const sentAt = performance.now()
        if (sentAt < registration.validUntil - REGISTERED_MILLIS + ECHO_MILLIS) return Effect.void
        return Effect.map(outsideTransaction(run(upsert, [channel.source, topic])), () => {
          // other processes did not notify this one in the meantime
          const { validUntil } = registration
          if (validUntil !== -Infinity && performance.now() > validUntil) receiver.resync()
          registration.validUntil = sentAt + REGISTERED_MILLIS
        })
      })
    )

  yield* Effect.gen(function* () {
    while (true) {
      yield* sleep(ECHO_MILLIS)
      if (!receiver.hasSubscribers()) continue
      for (const [topic, registration] of registrations) {
        if (registration.isWanted()) yield* renew(topic, registration)
      }
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
    registerTopic: (topic, isWanted) =>
      Effect.suspend(() => {
        let registration = registrations.get(topic)
        if (registration === undefined) {
          registrations.set(topic, (registration = { isWanted, validUntil: -Infinity }))
        } else {
          const wasWanted = registration.isWanted
          if (wasWanted !== isWanted) {
            registration.isWanted = wasWanted() ? () => wasWanted() || isWanted() : isWanted
          }
        }
        return renew(topic, registration)
      }),
    trim: Effect.asVoid(run(removeOld))
  }
})
