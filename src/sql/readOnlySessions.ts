/**
 * Ends connections that can no longer write, so that the client opens others.
 *
 * A failover may leave the connections of a pool with a server that has become read-only, while new ones would reach one
 * that can write. The client belongs to the user, and no client replaces a connection for that error. So the session is
 * asked whether it is read-only, and ends itself, which every client notices.
 */
import { Effect, FiberHandle, type Scope } from "effect"
import { SqlError } from "effect/sql"
import { makeOnceAMinute } from "../internal/driver/onceAMinute.ts"
import type { Database } from "./Database.ts"
import type { ReadOnlySessions } from "./dialect/Dialect.ts"
import * as Row from "./Row.ts"
import { sleep } from "./sleep.ts"

/** The pauses between two connections: short enough for a large pool, and a second where no server can write. */
const PAUSE_MILLIS = 10
const PAUSE_FACTOR = 1.2
const MAX_PAUSE_MILLIS = 1000

/** How many connections are taken at the same time at most, of a large pool. */
const MAX_TAKEN = 3
/** How many connections a client has that does not show it. */
const UNKNOWN_CONNECTIONS = 10

/**
 * Takes connections of the client for itself, until it has one that is read-only, and ends that. Returns whether it has ended one.
 * It keeps those that can write until then: a pool lends the one that was used last, which one of the store's own calls may have
 * used since the read-only one.
 */
const makeEndOne = (
  { client, connections = UNKNOWN_CONNECTIONS, outsideTransaction, reader }: Database,
  { end, select }: ReadOnlySessions
): Effect.Effect<boolean, SqlError.SqlError | Row.CorruptRow> => {
  const read = reader<{ readonly is_read_only: 0 | 1 }>("(session)", { is_read_only: Row.flag })
  const endFirst = (left: number): Effect.Effect<boolean, SqlError.SqlError | Row.CorruptRow> =>
    Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* client.reserve
        const [session] = yield* read(yield* connection.executeUnprepared(select, [], undefined))
        if (session?.is_read_only !== 1) return left > 1 ? yield* endFirst(left - 1) : false
        yield* Effect.ignore(connection.executeUnprepared(end, [], undefined))
        // by its failure the client notices the end before it lends the connection again
        return yield* Effect.isFailure(connection.executeUnprepared(select, [], undefined))
      })
    )
  return outsideTransaction(endFirst(Math.max(1, Math.min(MAX_TAKEN, Math.floor(connections / 3)))))
}

/**
 * Returns the database with calls that, if they fail because a connection is read-only, end the read-only connections of
 * the client, one at a time, until only such are met that can write. They are ended in the background, and the calls still fail:
 * the server has undone what they did. Connections in use are left alone, those of a caller's transaction too;
 * `giveBack` gives back a connection that the store itself holds.
 */
export const endAfterRefusal = Effect.fnUntraced(function* (
  db: Database,
  giveBack: Effect.Effect<void>
): Effect.fn.Return<Database, never, Scope.Scope> {
  const { readOnlySessions } = db.dialect
  if (readOnlySessions === undefined) return db
  const endOne = makeEndOne(db, readOnlySessions)
  const isNews = makeOnceAMinute()
  const endAll = Effect.gen(function* () {
    yield* giveBack
    for (let pause = PAUSE_MILLIS; yield* endOne; pause = Math.min(pause * PAUSE_FACTOR, MAX_PAUSE_MILLIS)) {
      if (pause === PAUSE_MILLIS) {
        yield* ((yield* isNews) ? Effect.logWarning : Effect.logDebug)(
          `Failed to use a read-only connection to ${db.store}; ending such connections, so that the client opens others`
        )
      }
      yield* sleep(pause)
    }
  }).pipe(
    Effect.catchCause((cause) =>
      Effect.logDebug("Failed to end a read-only connection; trying again after the next refused call", cause)
    )
  )
  const fork = yield* FiberHandle.makeRuntime<never>()
  const endReadOnlySessions = Effect.sync(() => {
    fork(endAll, { onlyIfMissing: true })
  })
  const onError = (error: unknown) =>
    SqlError.isSqlError(error) && readOnlySessions.isRefusal(error.reason.cause ?? {})
      ? endReadOnlySessions
      : Effect.void
  return {
    ...db,
    endReadOnlySessions,
    outsideTransaction: (effect) => Effect.tapError(db.outsideTransaction(effect), onError),
    inCallerTransaction: (effect) => Effect.tapError(db.inCallerTransaction(effect), onError),
    readsInCallerTransaction: (effect) => Effect.tapError(db.readsInCallerTransaction(effect), onError)
  }
})
