/**
 * Keeps a connection to the server open: replaces one that closes, with backoff, until the scope closes.
 *
 * A broker has two of them, one for publishing and one for consuming. A server that runs out of memory or disk stops
 * reading from connections that publish, and acks have to get through all the same.
 */
import { Cause, Deferred, Effect, Exit, Latch, type Scope } from "effect"
import { backoff } from "../internal/backoff.ts"
import type { Outages } from "../internal/driver/Outages.ts"
import { BrokerError } from "../StoreError.ts"
import * as Connection from "./Connection.ts"
import { fromUnknown, isPermanent, type RabbitError } from "./RabbitError.ts"

/** Gives access to the connection that is currently open. */
export interface ReconnectingConnection {
  /** Returns the open connection; waits while there is none. */
  readonly current: Effect.Effect<Connection.Connection>
  readonly outages: Outages
}

/** Opens the first connection, and fails if that fails; later failures are an outage, and retried. */
export const make = Effect.fnUntraced(function* (
  address: Connection.Address,
  purpose: string,
  outages: Outages
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

  let isLost = false
  const failureOf = (cause: RabbitError) =>
    Cause.fail(
      new BrokerError({ operation: `connection for ${purpose}`, retryable: !isPermanent(cause), cause })
    )

  /** Opens a connection, provides it as the current one, and returns once it is closed. */
  const holdOpen = (open: Effect.Effect<Connection.Connection, RabbitError, Scope.Scope>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const opened = yield* open
        if (!opened.isClosed) {
          connection = opened
          isOpen.openUnsafe()
          if (isLost) {
            isLost = false
            yield* outages.connectionRestored
          }
        }
        const reason = yield* Deferred.await(opened.closed)
        if (isLost) return yield* outages.failed(failureOf(reason))
        isLost = true
        yield* outages.connectionLost(failureOf(reason))
      })
    )

  const firstOpened = yield* Deferred.make<void, RabbitError>()
  yield* holdOpen(Effect.onExit(open, (exit) => Deferred.done(firstOpened, Exit.asVoid(exit)))).pipe(
    Effect.andThen(
      Effect.forever(
        holdOpen(
          Effect.retry(
            Effect.tapError(open, (error) => outages.failed(failureOf(error))),
            backoff
          )
        )
      )
    ),
    Effect.ignore,
    Effect.forkScoped
  )
  yield* Deferred.await(firstOpened)

  const current: Effect.Effect<Connection.Connection> = Effect.suspend(() =>
    connection === undefined ? Effect.andThen(isOpen.await, current) : Effect.succeed(connection)
  )
  return { current, outages }
})
