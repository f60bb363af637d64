/**
 * Registers this process for topics in the table `listeners`, where other processes see which topics to notify.
 */
import { Effect, type Scope, Semaphore } from "effect"
import type { Database, StoreError } from "../Database.ts"
import { sleep } from "../sleep.ts"
import type { Interest } from "./notificationProtocol.ts"
import type { NotificationReceiver } from "./NotificationReceiver.ts"

/** How long a registration is valid, and after how long it is renewed. */
const REGISTERED_MILLIS = 30_000
const RENEWED_AFTER_MILLIS = 10_000

/** Registrations that one `trim` removes at most. */
const MAX_REMOVED = 1000

/** How the registrations of a process are kept. */
export interface Options {
  /** The id of this process. */
  readonly source: string
  /** How often registrations are renewed where that is due, in milliseconds. */
  readonly renewMillis: number
  /** What is done after each renewal. */
  readonly afterRenewal?: Effect.Effect<unknown, StoreError> | undefined
  /** For how long a topic is not wanted before its registration is removed. Default: it lapses. */
  readonly removesAfterMillis?: number | undefined
  /** The pause after a failure, during which nothing is registered. Default 0. */
  readonly retryMillis?: number | undefined
  /** The statement that removes registrations that are over, at most that many. */
  readonly removeOld: (count: number) => string
}

/** The registration for one topic. */
class Registration {
  readonly topic: string
  readonly interests = new Set<Interest>()
  /** When it was wanted last. */
  private wantedAt = -Infinity
  /** Since when, and until when, other processes see it, by the monotonic clock of this process. */
  private since = Infinity
  private validUntil = -Infinity

  constructor(topic: string) {
    this.topic = topic
  }

  want(interest: Interest, now: number): void {
    this.interests.add(interest)
    this.wantedAt = now
  }

  get isWanted(): boolean {
    for (const { isWanted } of this.interests) if (isWanted()) return true
    return false
  }

  get isUrgent(): boolean {
    for (const { isUrgent, isWanted } of this.interests) if (isUrgent && isWanted()) return true
    return false
  }

  /** Drops interests that are over, and returns whether it is to be removed. */
  isUnwanted(now: number, removesAfterMillis: number): boolean {
    for (const interest of this.interests) if (!interest.isWanted()) this.interests.delete(interest)
    if (this.interests.size > 0) this.wantedAt = now
    return this.validUntil > now && now - this.wantedAt >= removesAfterMillis
  }

  /** A third of its time is over, or more. */
  isDue(now: number): boolean {
    return now >= this.validUntil - REGISTERED_MILLIS + RENEWED_AFTER_MILLIS
  }

  /** Notes that it was registered, and returns whether other processes did not see it in the meantime. */
  registered(sentAt: number, now: number): boolean {
    const hasLapsed = this.validUntil <= now
    const hadGap = hasLapsed && this.validUntil !== -Infinity
    if (hasLapsed) this.since = now
    this.validUntil = Math.max(this.validUntil, sentAt + REGISTERED_MILLIS)
    return hadGap
  }

  /** Notes that it is being removed. */
  remove(): void {
    this.since = Infinity
    this.validUntil = -Infinity
  }

  /** Other processes have seen it for that time, and still see it. */
  isSeenFor(millis: number, now: number): boolean {
    return this.since + millis <= now && now < this.validUntil
  }

  isValid(now: number): boolean {
    return now < this.validUntil
  }

  isOver(now: number): boolean {
    return this.interests.size === 0 && this.validUntil <= now
  }
}

/** The registrations of one process. */
export interface TopicRegistrations {
  /** Registers for topics for as long as they are wanted. Hints of later commits are received. */
  readonly register: (topics: Iterable<string>, interest: Interest) => Effect.Effect<void, StoreError>
  /** Whether the topics are wanted for that, and registered, as far as the database lets them be. */
  readonly isRegistered: (topics: Iterable<string>, interest: Interest) => boolean
  /** How soon hints have to be received: `undefined` if no topic is wanted. */
  readonly urgency: () => "urgent" | "patient" | undefined
  /** Returns whether other processes have seen the registration for that time, and still see it. */
  readonly isSeenFor: (topic: string, millis: number) => boolean
  /** Returns the topics that somebody waits for, without those that other processes have seen for that time. */
  readonly unseen: (millis: number) => ReadonlyArray<string>
  /** Removes the registrations of processes that are gone. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** Prepares the statements. */
const makeStatements = (
  { batched, dialect, outsideTransaction, retryOnDeadlock, run, table }: Database,
  { removeOld, source }: Options
) => {
  const { incoming, inList, list, now, onConflictUpdate } = dialect
  const listeners = table("listeners")
  const upsert = batched(
    { id: "text", topic: "text" },
    (batch) => `INSERT INTO ${listeners} (id, topic, until)
      SELECT batch.id, batch.topic, ${now} + ${REGISTERED_MILLIS} FROM ${batch} WHERE batch.id IS NOT NULL
      ${onConflictUpdate("id, topic")} until = ${incoming("until")}`
  )
  const removeTopics = `DELETE FROM ${listeners} WHERE id = ? AND ${inList("topic", "text")}`
  const removeOwn = `DELETE FROM ${listeners} WHERE id = ?`
  const topicsOf = (registrations: ReadonlyArray<Registration>) => registrations.map(({ topic }) => topic)
  return {
    register: (registrations: ReadonlyArray<Registration>) =>
      outsideTransaction(
        retryOnDeadlock(upsert(topicsOf(registrations).map((topic) => ({ id: source, topic }))))
      ),
    remove: (registrations: ReadonlyArray<Registration>) =>
      outsideTransaction(run(removeTopics, [source, list(topicsOf(registrations))])),
    removeOwn: outsideTransaction(run(removeOwn, [source])),
    trim: Effect.asVoid(run(removeOld(MAX_REMOVED)))
  }
}

/** Makes the registrations of one process, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  db: Database,
  options: Options,
  receiver: Pick<NotificationReceiver, "hasSubscribers" | "resync">
): Effect.fn.Return<TopicRegistrations, never, Scope.Scope> {
  const { afterRenewal = Effect.void, removesAfterMillis = Infinity, renewMillis, retryMillis = 0 } = options
  const statements = makeStatements(db, options)
  const registrations = new Map<string, Registration>()
  const writing = Semaphore.makeUnsafe(1)
  let retryAt = -Infinity

  const isDue = (registration: Registration): boolean => registration.isDue(performance.now())

  /** Registers, or renews registrations that are a third over: all of them at once. */
  const renew = (wanted: ReadonlyArray<Registration>): Effect.Effect<void, StoreError> =>
    Effect.suspend(() => {
      const sentAt = performance.now()
      const due = sentAt < retryAt ? [] : wanted.filter(isDue)
      if (due.length === 0) return Effect.void
      return statements.register(due).pipe(
        Effect.tapError(() => Effect.sync(() => (retryAt = performance.now() + retryMillis))),
        Effect.map(() => {
          const now = performance.now()
          // of each, since all of them are noted
          const gaps = due.filter((registration) => registration.registered(sentAt, now))
          if (gaps.length > 0) receiver.resync()
        })
      )
    })
  const renewIfDue = (wanted: ReadonlyArray<Registration>): Effect.Effect<void, StoreError> =>
    wanted.some(isDue) ? writing.withPermit(renew(wanted)) : Effect.void

  /** Removes registrations that are not wanted. One that is wanted meanwhile is registered again afterwards. */
  const removeUnwanted = Effect.suspend(() => {
    const now = performance.now()
    const unwanted = [...registrations.values()].filter((one) => one.isUnwanted(now, removesAfterMillis))
    for (const [topic, registration] of registrations) {
      if (registration.isOver(now)) registrations.delete(topic)
    }
    if (unwanted.length === 0) return Effect.void
    for (const registration of unwanted) registration.remove()
    return statements.remove(unwanted)
  })

  yield* Effect.gen(function* () {
    while (true) {
      yield* sleep(renewMillis)
      yield* writing.withPermit(removeUnwanted)
      if (!receiver.hasSubscribers()) continue
      yield* renewIfDue([...registrations.values()].filter(({ isWanted }) => isWanted))
      yield* afterRenewal
    }
  }).pipe(
    Effect.catchCause((cause) =>
      Effect.logDebug("Failed to renew registrations for notifications; trying again", cause)
    ),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    registrations.size === 0 ? Effect.void : Effect.ignore(statements.removeOwn)
  )

  const registrationOf = (topic: string): Registration => {
    let registration = registrations.get(topic)
    if (registration === undefined) registrations.set(topic, (registration = new Registration(topic)))
    return registration
  }
  return {
    register: (topics, interest) =>
      Effect.suspend(() => {
        const now = performance.now()
        const wanted = Array.from(topics, registrationOf)
        for (const registration of wanted) registration.want(interest, now)
        return renewIfDue(wanted)
      }),
    isRegistered: (topics, interest) => {
      const now = performance.now()
      for (const topic of topics) {
        const registration = registrations.get(topic)
        if (registration === undefined || !registration.interests.has(interest)) return false
        if (now >= retryAt && !registration.isValid(now)) return false
      }
      return true
    },
    urgency: () => {
      let urgency: "patient" | undefined
      for (const registration of registrations.values()) {
        if (registration.isUrgent) return "urgent"
        if (registration.isWanted) urgency = "patient"
      }
      return urgency
    },
    isSeenFor: (topic, millis) => registrations.get(topic)?.isSeenFor(millis, performance.now()) === true,
    unseen: (millis) => {
      const now = performance.now()
      return [...registrations.values()]
        .filter((registration) => registration.isUrgent && !registration.isSeenFor(millis, now))
        .map(({ topic }) => topic)
    },
    trim: statements.trim
  }
})
