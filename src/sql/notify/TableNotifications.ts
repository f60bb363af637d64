/**
 * Notifications between the processes of a store, by a table, where the database has no LISTEN and NOTIFY.
 *
 * A process that waits registers, and reads its rows of the table at short intervals; one that changes tasks or queues writes
 * rows for those that have registered. They are hints: whatever is lost is found by the polls that go on beside them. A writer
 * learns of a first registration within 2.5 seconds. For that time, and while a registration fails, the topics of those who
 * wait are hinted at an interval, so that they poll.
 */
import { Effect, Latch, type Scope } from "effect"
import type { Database } from "../Database.ts"
import { sleep } from "../sleep.ts"
import type { Interest, Notifications } from "./notificationProtocol.ts"
import * as NotificationReader from "./NotificationReader.ts"
import * as NotificationSender from "./NotificationSender.ts"
import * as tableDelivery from "./tableDelivery.ts"
import * as TopicRegistrations from "./TopicRegistrations.ts"

/** How often registrations are renewed where that is due, and removed where they are not wanted. */
const RENEW_MILLIS = 1000
/** A registration stays for a while, since waits follow each other. */
const REMOVES_AFTER_MILLIS = 1500
/** The pause before the database is asked again to register, after it has refused. */
const RETRY_MILLIS = 10_000
/** All writers have seen a registration after that time. */
const SEEN_AFTER_MILLIS = tableDelivery.READ_REGISTRATIONS_MILLIS + 500
/** How often topics are hinted until then. */
const POLL_MILLIS = 100
/** How often what processes that are gone have left is removed, at most. */
const TRIM_MILLIS = 60_000

/** The notifications of one store, by a table. */
export interface TableNotifications extends Notifications {
  /** The same as `registerTopics`. Returns `undefined` if there is nothing to do. */
  readonly registerIfNeeded: (topics: Iterable<string>, interest: Interest) => Effect.Effect<void> | undefined
  /** Whether all writers have seen the registration of this process for the topic. */
  readonly isSeen: (topic: string) => boolean
  /** Looks for hints often from now on, if somebody waits. */
  readonly expectHints: () => void
}

/** Makes the notifications over one database, until the scope closes. `source` is the id of this process. */
export const make = Effect.fnUntraced(function* (
  db: Database,
  source: string
): Effect.fn.Return<TableNotifications, never, Scope.Scope> {
  const notify = yield* NotificationSender.make(source, tableDelivery.make(db, source))
  const reader = NotificationReader.make(db, source)
  let hasRegistered = false
  // after the registrations, so that other processes write no more
  yield* Effect.addFinalizer(() => (hasRegistered ? Effect.ignore(reader.removeOwn) : Effect.void))
  const registrations = yield* TopicRegistrations.make(
    db,
    {
      source,
      renewMillis: RENEW_MILLIS,
      removesAfterMillis: REMOVES_AFTER_MILLIS,
      retryMillis: RETRY_MILLIS,
      removeOld: (count) =>
        `DELETE FROM ${db.table("listeners")} WHERE until <= ${db.dialect.now} LIMIT ${count}`
    },
    reader
  )
  const hasUnseen = Latch.makeUnsafe(false)
  const hintUnseen = Effect.gen(function* () {
    yield* hasUnseen.await
    yield* sleep(POLL_MILLIS)
    const topics = registrations.unseen(SEEN_AFTER_MILLIS)
    if (topics.length === 0) hasUnseen.closeUnsafe()
    else for (const topic of topics) reader.hintAll(topic)
  })
  yield* Effect.forkScoped(reader.follow(registrations.urgency))
  yield* Effect.forkScoped(Effect.forever(hintUnseen))

  const isSeen = (topic: string): boolean => registrations.isSeenFor(topic, SEEN_AFTER_MILLIS)
  const registerTopics = (topics: Iterable<string>, interest: Interest) =>
    Effect.suspend(() => {
      const wanted = [...topics]
      hasRegistered = true
      return registrations.register(wanted, interest).pipe(
        Effect.ignore({ log: "Debug" }),
        Effect.map(() => {
          if (!interest.isUrgent) return reader.wake()
          reader.expectHints()
          if (!wanted.every(isSeen)) hasUnseen.openUnsafe()
        })
      )
    })
  let trimmedAt = -Infinity
  return {
    notify,
    subscribe: reader.subscribe,
    registerTopics,
    registerIfNeeded: (topics, interest) =>
      registrations.isRegistered(topics, interest) ? undefined : registerTopics(topics, interest),
    isSeen,
    expectHints: reader.expectHints,
    trim: Effect.suspend(() => {
      const now = performance.now()
      if (now - trimmedAt < TRIM_MILLIS) return Effect.void
      trimmedAt = now
      return Effect.andThen(registrations.trim, reader.trim)
    })
  }
})
