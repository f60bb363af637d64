/**
 * Connects anew to a server that has become a replica.
 *
 * A primary that is demoted keeps its connections, and answers READONLY for ever, while its address may lead to the new
 * primary by now.
 */
import { Clock, Effect, Latch, type Scope } from "effect"
import type * as Redis from "effect/persistence/Redis"
import { makeOnceAMinute } from "../internal/driver/onceAMinute.ts"

/** A connection is closed at most once in this time, in nanoseconds: the address may be changed later than the server. */
const RECONNECT_AFTER = 1_000_000_000n

/** How a store leaves its server. */
export interface Reconnection {
  /** Has the client connect anew, without waiting for it. */
  readonly reconnect: Effect.Effect<void>
  /** Waits for the next `reconnect`. */
  readonly untilReconnect: Effect.Effect<void>
}

/** Makes it for a client that connects again when its connection was closed. Any user may run QUIT. */
export const make = Effect.fnUntraced(function* (
  redis: Redis.Redis["Service"]
): Effect.fn.Return<Reconnection, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const isNews = makeOnceAMinute()
  let last: bigint | undefined
  let next = Latch.makeUnsafe(false)
  return {
    reconnect: Effect.suspend(() => {
      const now = clock.monotonicTimeNanosUnsafe()
      if (last !== undefined && now - last < RECONNECT_AFTER) return Effect.void
      last = now
      const reconnecting = next
      next = Latch.makeUnsafe(false)
      reconnecting.openUnsafe()
      return Effect.andThen(
        Effect.flatMap(isNews, (isNews) =>
          (isNews ? Effect.logWarning : Effect.logDebug)(
            "The Redis server has become a read-only replica; connecting anew"
          )
        ),
        Effect.forkIn(Effect.ignore(redis.send("QUIT")), scope)
      ).pipe(Effect.asVoid)
    }),
    untilReconnect: Effect.suspend(() => next.await)
  }
})
