/**
 * Receives notifications of PostgreSQL over one connection, which is replaced when it breaks or falls silent.
 */
import { Effect, Fiber, Latch, Queue, Scope } from "effect"
import type { Database } from "../Database.ts"
import { sleep } from "../sleep.ts"
import type { ListenClient } from "./clientCapabilities.ts"
import { type Channel, decodePayload, ECHO, type Subscriber } from "./notificationProtocol.ts"

/** How often a process sends itself an echo. */
export const ECHO_MILLIS = 10_000
/** How long a process may receive no echo before it listens on another connection. */
const MAX_SILENCE_MILLIS = 2.5 * ECHO_MILLIS
/** The first and the longest pause before it listens again. */
const RELISTEN_MILLIS = 50
const MAX_RELISTEN_MILLIS = 5000
/** How long to wait until a connection no longer listens. */
const UNLISTEN_MILLIS = 1000

/** The receiver of one process. */
export interface NotificationReceiver {
  /** Receives hints until the scope closes. The process listens while there are subscribers. */
  readonly subscribe: (subscriber: Subscriber) => Effect.Effect<void, never, Scope.Scope>
  readonly hasSubscribers: () => boolean
  /** Tells all subscribers to resync. */
  readonly resync: () => void
}

/**
 * Provides a scope, and waits for its end for a while only: UNLISTEN gets no answer from a connection that fell silent,
 * and must not hold up listening again.
 */
const withImpatientScope = <A, E, R>(effect: Effect.Effect<A, E, R | Scope.Scope>) =>
  Effect.acquireUseRelease(
    Scope.make(),
    (scope) => Scope.provide(effect, scope),
    (scope, exit) =>
      Effect.flatMap(Effect.forkDetach(Scope.close(scope, exit)), (closing) =>
        Effect.raceFirst(Effect.asVoid(Fiber.await(closing)), sleep(UNLISTEN_MILLIS))
      )
  )

/** Runs a listener while it is wanted, and again after every failure. */
const superviseListener = <E>(options: {
  readonly listen: Effect.Effect<unknown, E>
  readonly onFailure: Effect.Effect<void>
  readonly wanted: Latch.Latch
  readonly unwanted: Latch.Latch
  /** Whether the listener received lately. */
  readonly isHealthy: () => boolean
}) => {
  const { isHealthy, listen, onFailure, unwanted, wanted } = options
  let failures = 0
  return wanted.await.pipe(
    Effect.andThen(
      Effect.onExit(Effect.raceFirst(listen, unwanted.await), () =>
        Effect.sync(() => {
          if (isHealthy()) failures = 0
        })
      )
    ),
    Effect.catchCause((cause) => {
      const pause = Math.min(MAX_RELISTEN_MILLIS, RELISTEN_MILLIS * 2 ** failures++)
      return Effect.logDebug("Failed to listen for notifications; listening again", cause).pipe(
        Effect.andThen(onFailure),
        Effect.andThen(sleep(pause))
      )
    }),
    Effect.forever
  )
}

/** Makes the receiver of a channel, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  { endReadOnlySessions }: Database,
  client: ListenClient,
  channel: Channel
): Effect.fn.Return<NotificationReceiver, never, Scope.Scope> {
  const subscribers = new Set<Subscriber>()
  const wanted = Latch.makeUnsafe(false)
  const unwanted = Latch.makeUnsafe(true)
  /** When the connection began to listen, or the last echo came, by the monotonic clock. */
  let lastEchoAt = 0

  const resync = (): void => {
    for (const subscriber of subscribers) subscriber.onResync()
  }
  const receive = (payload: string): void => {
    const decoded = decodePayload(payload)
    if (decoded === undefined) return
    const { ids, source, topic } = decoded
    if (source === channel.source) {
      if (topic === ECHO) lastEchoAt = performance.now()
      return
    }
    if (ids.length === 0) return resync()
    for (const subscriber of subscribers) subscriber.onHint({ topic, ids })
  }

  const listen = withImpatientScope(
    Effect.gen(function* () {
      const queue = yield* client.listen(channel.name)
      lastEchoAt = performance.now()
      resync()
      const receiveAll = Effect.forever(
        Effect.map(Queue.takeAll(queue), (messages) => {
          for (const { payload } of messages) receive(payload)
        })
      )
      const watchdog = Effect.gen(function* () {
        while (performance.now() - lastEchoAt < MAX_SILENCE_MILLIS) yield* sleep(ECHO_MILLIS / 2)
        return yield* Effect.fail(new Error("notifications no longer arrive"))
      })
      return yield* Effect.raceFirst(receiveAll, watchdog)
    })
  )
  yield* Effect.forkScoped(
    superviseListener({
      listen,
      // the next one would else listen again to a server that was demoted, and that no other process notifies
      onFailure: endReadOnlySessions,
      wanted,
      unwanted,
      isHealthy: () => performance.now() - lastEchoAt < ECHO_MILLIS
    })
  )

  return {
    subscribe: (subscriber) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => {
            subscribers.add(subscriber)
            unwanted.closeUnsafe()
            wanted.openUnsafe()
          }),
          () =>
            Effect.sync(() => {
              subscribers.delete(subscriber)
              if (subscribers.size > 0) return
              wanted.closeUnsafe()
              unwanted.openUnsafe()
            })
        )
      ),
    hasSubscribers: () => subscribers.size > 0,
    resync
  }
})
