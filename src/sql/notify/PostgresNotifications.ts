/**
 * Messages between the processes of a store, by LISTEN and NOTIFY of PostgreSQL.
 *
 * They are hints: lost while a connection is away, never relied on. NOTIFY takes a lock at its commit that all
 * notifying transactions share, and so it is kept out of every transaction that does work: what there is to tell is
 * collected, and told after the commit by a statement of its own, one at a time, to topics that somebody is
 * registered for. Such a statement writes nothing that has to reach the disk.
 */
import { createHash } from "node:crypto"
import { Effect, Fiber, FiberSet, Latch, Queue, Schema, Scope, Semaphore } from "effect"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { sleep } from "../sleep.ts"
import type { ListenClient } from "./clientCapabilities.ts"

/** What a process is told. */
export interface Hint {
  readonly topic: string
  readonly ids: ReadonlyArray<string>
}

/** Whom to tell. `Again`: anything may have been missed. */
export interface Subscriber {
  readonly onHint: (told: Hint) => void
  readonly onResync: () => void
}

/** What the parts of a store need of it. */
export interface PostgresNotifications {
  /** Tells whoever is registered for the topic, other processes only. */
  readonly notify: (topic: string, ids: ReadonlyArray<string>) => void
  /** Listens until the scope closes. */
  readonly subscribe: (listener: Subscriber) => Effect.Effect<void, never, Scope.Scope>
  /** Registers for a topic, for as long as it is wanted. What is committed after it was answered is told. */
  readonly registerTopic: (topic: string, isWanted: () => boolean) => Effect.Effect<void, StoreError>
  /** Removes registrations of processes that are gone. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** How long a registration counts, and how often it is renewed. */
const REGISTERED_MILLIS = 30_000
const RENEW_MILLIS = 10_000
/** A process that has not heard its own renewal for so long listens anew. */
const DEAF_MILLIS = 2.5 * RENEW_MILLIS
/** How often it is looked whether somebody registered, while nobody is. */
const NOBODY_PAUSE_MILLIS = 50
/** How long to wait before listening anew, at first and at most. */
const RELISTEN_MILLIS = 50
const RELISTEN_MOST_MILLIS = 5000
/** How long it may take until a connection no longer listens. */
const UNLISTEN_MILLIS = 1000
/** What one notification holds; the database allows 8,000 bytes. */
const PAYLOAD_BYTES = 7500
/** With more than this to tell, everyone is asked to read again. */
const MANY = 10_000

const Payload = Schema.fromJsonString(
  Schema.Struct({ source: Schema.String, topic: Schema.String, ids: Schema.Array(Schema.String) })
)
const decode = Schema.decodeUnknownOption(Payload)

/** What is told to a process about itself: that it hears. */
const ECHO = "echo"

const payloads = (source: string, topic: string, ids: ReadonlyArray<string>): Array<string> => {
  const made: Array<string> = []
  let part: Array<string> = []
  let bytes = 0
  const close = () => made.push(JSON.stringify({ source, topic, ids: part }))
  for (const id of ids) {
    const size = Buffer.byteLength(JSON.stringify(id)) + 1
    if (bytes + size > PAYLOAD_BYTES - 400) {
      close()
      part = []
      bytes = 0
    }
    part.push(id)
    bytes += size
  }
  close()
  return made
}

/**
 * With a scope whose end is waited for only a while: it unlistens, which a connection that fell silent never answers,
 * and whoever listens anew must not wait for that.
 */
const scopedLoosely = <A, E, R>(effect: Effect.Effect<A, E, R | Scope.Scope>) =>
  Effect.acquireUseRelease(
    Scope.make(),
    (scope) => Scope.provide(effect, scope),
    (scope, exit) =>
      Effect.flatMap(Effect.forkDetach(Scope.close(scope, exit)), (closing) =>
        Effect.raceFirst(Effect.asVoid(Fiber.await(closing)), sleep(UNLISTEN_MILLIS))
      )
  )

/** Over one database; ends with the scope. `source` tells this process from others. */
export const make = Effect.fnUntraced(function* (
  db: Database,
  client: ListenClient,
  source: string
): Effect.fn.Return<PostgresNotifications, StoreError, Scope.Scope> {
  const { dialect } = db
  const table = db.table("listeners")

  const readSchema = db.reader<{ readonly name: string | null }>("(schema)", { name: Row.orNull(Row.text) })
  const [schema] = yield* Effect.flatMap(db.run("SELECT current_schema()::text AS name"), readSchema)
  // channels are names of the whole database, of 63 bytes at most
  const place = `${schema?.name ?? ""}.${db.tableName("")}`
  const channel = `chicory_${createHash("sha256").update(place).digest("hex").slice(0, 32)}`

  const anybody = `SELECT 1 AS one FROM ${table} WHERE topic = ? AND until > ${dialect.now} AND id <> ? LIMIT 1`
  const notify = `SELECT pg_notify(?, payload), set_config('synchronous_commit', 'off', true)
    FROM unnest(?::text[]) AS told (payload) WHERE EXISTS (${anybody})`
  const echo = `SELECT pg_notify(?, ?), set_config('synchronous_commit', 'off', true)`
  const upsert = dialect.upsert({
    table,
    values: { id: "?", topic: "?", until: `${dialect.now} + ${REGISTERED_MILLIS}` },
    key: ["id", "topic"],
    set: (incoming) => ({ until: incoming("until") })
  })
  const removeOwn = `DELETE FROM ${table} WHERE id = ?`
  const removeOld = `DELETE FROM ${table} WHERE until <= ${dialect.now}`

  // #region Telling

  /** What is still to be told, of each topic that a fiber is at. */
  const telling = new Map<string, Set<string>>()
  /** Topics that nobody was registered for, when it was last looked. */
  const lonely = new Set<string>()
  const fork = yield* FiberSet.makeRuntime()

  const send = (topic: string, ids: ReadonlySet<string>) => {
    const texts = payloads(source, topic, ids.size < MANY ? [...ids] : [])
    return Effect.map(db.run(notify, [channel, texts, topic, source]), (told) => told.length > 0)
  }
  const isHeard = (topic: string) => Effect.map(db.run(anybody, [topic, source]), (found) => found.length > 0)

  const tellOnce = (topic: string, ids: ReadonlySet<string>) =>
    Effect.map(
      db.outsideTransaction(
        lonely.has(topic)
          ? Effect.flatMap(isHeard(topic), (heard) => (heard ? send(topic, ids) : Effect.succeed(false)))
          : send(topic, ids)
      ),
      (heard) => {
        if (heard) lonely.delete(topic)
        else lonely.add(topic)
      }
    )

  const tellTopic = Effect.fnUntraced(function* (topic: string) {
    for (let ids = telling.get(topic)!; ids.size > 0; ids = telling.get(topic)!) {
      telling.set(topic, new Set())
      yield* tellOnce(topic, ids).pipe(
        // a hint that was not told is one that was lost
        Effect.catchCause((cause) => Effect.logDebug("Other processes could not be notified", cause))
      )
      if (lonely.has(topic)) yield* sleep(NOBODY_PAUSE_MILLIS)
    }
    telling.delete(topic)
    if (lonely.size > MANY) lonely.clear()
  })

  const tell: PostgresNotifications["notify"] = (topic, ids) => {
    const told = telling.get(topic)
    if (told === undefined) {
      telling.set(topic, new Set(ids))
      fork(tellTopic(topic))
    } else if (told.size < MANY) for (const id of ids) told.add(id)
  }

  // #endregion

  // #region Listening

  const listeners = new Set<Subscriber>()
  const wanted = Latch.makeUnsafe(false)
  const unwanted = Latch.makeUnsafe(true)
  let heardAt = 0

  const hear = (payload: string): void => {
    const told = decode(payload)
    if (told._tag === "None") return
    const { ids, source: from, topic } = told.value
    if (from === source) {
      if (topic === ECHO) heardAt = performance.now()
      return
    }
    for (const listener of listeners) {
      // too many to be told, or nothing but the topic
      if (ids.length === 0) listener.onResync()
      else listener.onHint({ topic, ids })
    }
  }

  const listening = scopedLoosely(
    Effect.gen(function* () {
      const queue = yield* client.listen(channel)
      heardAt = performance.now()
      for (const listener of listeners) listener.onResync()
      const receive = Effect.forever(
        Effect.map(Queue.takeAll(queue), (messages) => {
          for (const { payload } of messages) hear(payload)
        })
      )
      const watchdog = Effect.gen(function* () {
        while (performance.now() - heardAt < DEAF_MILLIS) yield* sleep(RENEW_MILLIS / 2)
        return yield* Effect.fail(new Error("notifications no longer arrive"))
      })
      return yield* Effect.raceFirst(receive, watchdog)
    })
  )
  let failures = 0
  yield* wanted.await.pipe(
    Effect.andThen(
      Effect.onExit(Effect.raceFirst(listening, unwanted.await), () =>
        Effect.sync(() => {
          // it listened for a while
          if (performance.now() - heardAt < RENEW_MILLIS) failures = 0
        })
      )
    ),
    Effect.catchCause((cause) => {
      const pause = Math.min(RELISTEN_MOST_MILLIS, RELISTEN_MILLIS * 2 ** failures++)
      return Effect.andThen(
        Effect.logDebug("The connection that hears of changes was lost; listening anew", cause),
        sleep(pause)
      )
    }),
    Effect.forever,
    Effect.forkScoped
  )

  // #endregion

  // #region Registering

  interface Registration {
    isWanted: () => boolean
    /** By the monotonic clock of this process. */
    until: number
  }
  const registrations = new Map<string, Registration>()
  const registering = Semaphore.makeUnsafe(1)

  const renew = (topic: string, registration: Registration) =>
    registering.withPermit(
      Effect.suspend(() => {
        const asked = performance.now()
        if (asked < registration.until - REGISTERED_MILLIS + RENEW_MILLIS) return Effect.void
        return Effect.map(db.outsideTransaction(db.run(upsert, [source, topic])), () => {
          // there was a time in which nobody told this process
          if (registration.until !== -Infinity && performance.now() > registration.until) {
            for (const listener of listeners) listener.onResync()
          }
          registration.until = asked + REGISTERED_MILLIS
        })
      })
    )

  yield* Effect.gen(function* () {
    while (true) {
      yield* sleep(RENEW_MILLIS)
      if (listeners.size === 0) continue
      for (const [topic, registration] of registrations) {
        if (registration.isWanted()) yield* renew(topic, registration)
      }
      yield* db.outsideTransaction(db.run(echo, [channel, JSON.stringify({ source, topic: ECHO, ids: [] })]))
    }
  }).pipe(
    Effect.catchCause((cause) => Effect.logDebug("A registration could not be renewed", cause)),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    registrations.size === 0 ? Effect.void : Effect.ignore(db.outsideTransaction(db.run(removeOwn, [source])))
  )

  // #endregion

  return {
    notify: tell,
    subscribe: (listener) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => {
            listeners.add(listener)
            unwanted.closeUnsafe()
            wanted.openUnsafe()
          }),
          () =>
            Effect.sync(() => {
              listeners.delete(listener)
              if (listeners.size > 0) return
              wanted.closeUnsafe()
              unwanted.openUnsafe()
            })
        )
      ),
    registerTopic: (topic, isWanted) =>
      Effect.suspend(() => {
        let registration = registrations.get(topic)
        if (registration === undefined) {
          registrations.set(topic, (registration = { isWanted, until: -Infinity }))
        } else {
          const wasWanted = registration.isWanted
          if (wasWanted !== isWanted) {
            registration.isWanted = wasWanted() ? () => wasWanted() || isWanted() : isWanted
          }
        }
        return renew(topic, registration)
      }),
    trim: Effect.asVoid(db.run(removeOld))
  }
})
