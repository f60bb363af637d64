/**
 * Keeps a connection to the server open: replaces one that closes, with backoff, until the scope closes.
 *
 * A broker has two of them, one for publishing and one for consuming. A server that runs out of memory or disk stops
 * reading from connections that publish, and acks have to get through all the same.
 */
import { Deferred, Effect, Exit, Latch, type Scope } from "effect"
import { backoff } from "../internal/backoff.ts"
import * as Connection from "./Connection.ts"
import { fromUnknown, type RabbitError } from "./RabbitError.ts"

/** Gives access to the connection that is currently open. */
export interface ReconnectingConnection {
  /** Returns the open connection; waits while there is none. */
  readonly current: Effect.Effect<Connection.Connection>
}

/** Opens the first connection, and fails if that fails; later failures are logged and retried. */
export const make = Effect.fnUntraced(function* (
  address: Connection.Address,
  purpose: string
): Effect.fn.Return<ReconnectingConnection, RabbitError, Scope.Scope> {
  let connection: Connection.Connection | undefined
  const isOpen = Latch.makeUnsafe(false)
  const onClose = () => {
    connection = undefined
    isOpen.closeUnsafe()
  }
  const open = Effect.acquireRelease(
    Effect.tryPromise({
      try: (signal) => Connection.open(address, purpose, onClose, signal),
      catch: fromUnknown
    }),
    Connection.close,
    { interruptible: true }
  )

  /** The last logged failure to connect; the same one is logged once. */
  let lastLogged = ""
  const logFailure = (error: RabbitError) =>
    Effect.suspend(() => {
      if (error.message === lastLogged) return Effect.void
      lastLogged = error.message
      return Effect.logWarning(`Failed to connect to RabbitMQ for ${purpose}; retrying with backoff`, error)
    })

  /** Opens a connection, provides it as the current one, and returns once it is closed. */
  const holdOpen = (open: Effect.Effect<Connection.Connection, RabbitError, Scope.Scope>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const opened = yield* open
        if (!opened.isClosed) {
          connection = opened
          lastLogged = ""
          isOpen.openUnsafe()
        }
        const reason = yield* Deferred.await(opened.closed)
        yield* Effect.logWarning(`Lost the connection to RabbitMQ for ${purpose}; reconnecting`, reason)
      })
    )

  const firstOpened = yield* Deferred.make<void, RabbitError>()
  yield* holdOpen(Effect.onExit(open, (exit) => Deferred.done(firstOpened, Exit.asVoid(exit)))).pipe(
    Effect.andThen(Effect.forever(holdOpen(Effect.retry(Effect.tapError(open, logFailure), backoff)))),
    Effect.ignore,
    Effect.forkScoped
  )
  yield* Deferred.await(firstOpened)

  const current: Effect.Effect<Connection.Connection> = Effect.suspend(() =>
    connection === undefined ? Effect.andThen(isOpen.await, current) : Effect.succeed(connection)
  )
  return { current }
})
