/**
 * Reserves a connection of the client for the calls of workers.
 *
 * Handlers may hold all connections of a pool, in transactions that last as long as the handlers do. A call of their worker
 * that waited for one of those would be too late for their leases. So one connection is reserved while a process works. A
 * call uses it unless another call does, and otherwise the first one that becomes free.
 *
 * Claims wait while none is reserved, so that no handler begins after the reserved connection was lost and before it is
 * replaced.
 */
import { Data, Effect, Exit, Fiber, Latch, Scope, Semaphore } from "effect"
import type { SqlError } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import type { Database } from "./Database.ts"
import { connectionsOf } from "./notify/clientCapabilities.ts"
import { sleep } from "./sleep.ts"
import type { WithSqlError } from "./transactions.ts"

/** How long a call waits for another connection before it takes the reserved one. */
const PATIENCE_MILLIS = 50
/** How long after a call that succeeded the reserved connection is used without asking whether it works. */
const TRUSTED_MILLIS = 2000
/** How long the reserved connection may take to answer whether it works, before it is asked again. */
const ANSWER_MILLIS = 1000
/** Questions without an answer after which it counts as lost. A process that stands still hears an answer too late. */
const MAX_UNANSWERED = 5
/** How long a connection stays reserved before another one takes its place, so that the client can end old ones. */
const RESERVED_MILLIS = 60_000
/** The pause before another connection is reserved after one was lost, or the client has lent none. */
const RETRY_MILLIS = 250
/** How long to wait for a second connection before the client is taken for one that has a single one. */
const SECOND_MILLIS = 1000
/** The pause before such a client is asked again: it may have been a larger pool whose connections were all in use. */
const SINGLE_MILLIS = 60_000

/** The reserved connection of one store. */
export interface ReservedConnection {
  /**
   * Runs with one connection, the reserved one if need be. In a transaction of the caller it runs there. Before the first
   * claim or start no connection is reserved, and it takes connections as it needs them.
   */
  readonly withConnection: WithSqlError
  /** The same for reads, which use the reserved connection only if no other is free. */
  readonly reads: WithSqlError
  /** The same for claims, which wait until a connection is reserved, unless the client has refused that. */
  readonly claims: WithSqlError
  /** Reserves a connection from now on, in the background. */
  readonly reserve: () => void
  /** Gives the connection back to the client, and reserves another one. */
  readonly renew: Effect.Effect<void>
}

/** A connection that is reserved until its scope closes. */
interface Held {
  readonly connection: Connection
  readonly scope: Scope.Closeable
  /** Is held by the call that uses the connection. */
  readonly turn: Semaphore.Semaphore
  /** Until when it is used without asking whether it works, by the monotonic clock. */
  trustedUntil: number
  /** Questions whether it works that were not answered in time, one after the other. */
  unanswered: number
}

/** The client seems to have a single connection, which others need. */
class SingleConnection extends Data.TaggedError("SingleConnection") {}

/** Interrupts an effect after that time, and returns whether it ended before. */
const endsWithin = <A, E, R>(effect: Effect.Effect<A, E, R>, millis: number) =>
  Effect.raceFirst(Effect.as(effect, true), Effect.as(sleep(millis), false))

const isTrusted = ({ trustedUntil }: Held): boolean => trustedUntil > performance.now()

const trust = (held: Held): void => {
  held.trustedUntil = performance.now() + TRUSTED_MILLIS
  held.unanswered = 0
}

/** Asks whether the connection works, and returns whether it is lost. */
const isLost = (held: Held): Effect.Effect<boolean> =>
  endsWithin(held.connection.executeUnprepared("SELECT 1", [], undefined), ANSWER_MILLIS).pipe(
    Effect.map((answered) => {
      if (answered) trust(held)
      else held.unanswered++
      return held.unanswered >= MAX_UNANSWERED
    }),
    Effect.orElseSucceed(() => true)
  )

const giveBack = ({ scope, turn }: Held): Effect.Effect<void> =>
  turn.withPermit(Scope.close(scope, Exit.void))

/** The connection that is reserved at present. */
class Reservation {
  private held: Held | undefined
  private readonly available = Latch.makeUnsafe(false)
  private readonly dropped = Latch.makeUnsafe(true)
  /** Open while there is one, and after the client has refused one. */
  private readonly decided = Latch.makeUnsafe(false)

  /** Puts a connection in the place of another one. */
  replace(connection: Connection, scope: Scope.Closeable): void {
    const { held } = this
    this.held = { connection, scope, turn: Semaphore.makeUnsafe(1), trustedUntil: 0, unanswered: 0 }
    this.available.openUnsafe()
    this.decided.openUnsafe()
    this.dropped.closeUnsafe()
    if (held !== undefined) Effect.runFork(giveBack(held))
  }

  /** Gives the connection back once no call uses it, if it is still that one. */
  drop(held: Held | undefined = this.held): void {
    if (held === undefined || this.held !== held) return
    this.held = undefined
    this.available.closeUnsafe()
    this.decided.closeUnsafe()
    this.dropped.openUnsafe()
    Effect.runFork(giveBack(held))
  }

  /** The client has refused to lend one. */
  refuse(): void {
    this.decided.openUnsafe()
  }

  readonly untilDropped = Effect.suspend(() => this.dropped.await)

  /** Waits until one is reserved that works, or the client has refused one. */
  readonly untilReserved: Effect.Effect<void> = Effect.suspend(() => this.decided.await).pipe(
    Effect.andThen(
      Effect.suspend(() => {
        const { held } = this
        return held === undefined || isTrusted(held)
          ? Effect.succeed(true)
          : Effect.map(Effect.scoped(this.lendOnce), (lent) => lent !== undefined)
      })
    ),
    Effect.repeat({ until: (reserved) => reserved }),
    Effect.asVoid
  )

  /** Takes the turn of a call, which `trust` and `turn` end, if the connection is known to work and no other call uses it. */
  readonly takeIfFree: Effect.Effect<Held | undefined> = Effect.suspend(() => {
    const { held } = this
    return held === undefined || !isTrusted(held)
      ? Effect.undefined
      : Effect.map(held.turn.takeIfAvailable(1), (taken) => (taken ? held : undefined))
  })

  /** Lends the connection to one call at a time, until the scope closes. Waits while there is none. */
  readonly lend: Effect.Effect<Held, never, Scope.Scope> = Effect.gen({ self: this }, function* () {
    const scope = yield* Effect.scope
    while (true) {
      yield* this.available.await
      const attempt = yield* Scope.fork(scope)
      const held = yield* Scope.provide(this.lendOnce, attempt)
      if (held !== undefined) return held
      yield* Scope.close(attempt, Exit.void)
    }
  })

  private readonly lendOnce: Effect.Effect<Held | undefined, never, Scope.Scope> = Effect.gen(
    { self: this },
    function* () {
      const { held } = this
      if (held === undefined) return undefined
      yield* held.turn.takeScoped(1)
      if (this.held !== held) return undefined
      if (isTrusted(held)) return held
      if (yield* isLost(held)) this.drop(held)
      return isTrusted(held) ? held : undefined
    }
  )
}

/**
 * Asks the client for a connection, until the scope closes. An interruption does not wait for a client that cannot be
 * interrupted while it waits: what it lends too late is given back.
 */
const reserveFrom = ({ client }: Database): Effect.Effect<Connection, SqlError.SqlError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const lent = yield* Scope.make()
      const asking = yield* Effect.forkDetach(Effect.interruptible(Scope.provide(client.reserve, lent)))
      const giveUp = Effect.forkDetach(Effect.andThen(Fiber.interrupt(asking), Scope.close(lent, Exit.void)))
      const connection = yield* Effect.onError(restore(Fiber.join(asking)), () => giveUp)
      yield* Effect.addFinalizer((exit) => Scope.close(lent, exit))
      return connection
    })
  )

/** Reserves a connection of the client. Fails if it seems to be the only one. */
const makeReserve = (
  db: Database
): Effect.Effect<Connection, SqlError.SqlError | SingleConnection, Scope.Scope> => {
  let hasOthers = connectionsOf(db.client) !== undefined
  const lendsAnother = endsWithin(Effect.scoped(reserveFrom(db)), SECOND_MILLIS)
  return Effect.gen(function* () {
    const connection = yield* reserveFrom(db)
    if (!hasOthers) hasOthers = yield* lendsAnother
    return hasOthers ? connection : yield* new SingleConnection()
  })
}

/** Keeps a connection reserved from the time that it is wanted. */
const keepReserved = (db: Database, reservation: Reservation, wanted: Latch.Latch): Effect.Effect<never> => {
  const reserve = makeReserve(db)
  const reserveAnother = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Scope.make(), (scope) =>
      restore(Scope.provide(reserve, scope)).pipe(
        Effect.map((connection) => reservation.replace(connection, scope)),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    )
  )
  const refused = (pause: number) =>
    Effect.suspend(() => {
      reservation.refuse()
      return sleep(pause)
    })
  return wanted.await.pipe(
    Effect.andThen(reserveAnother),
    Effect.andThen(endsWithin(reservation.untilDropped, RESERVED_MILLIS)),
    Effect.andThen((dropped) => (dropped ? sleep(RETRY_MILLIS) : Effect.void)),
    Effect.catchTag("SingleConnection", () =>
      Effect.andThen(
        Effect.logWarning(
          `The SqlClient of ${db.store} lends no second connection; while a handler holds the only one, leases are not renewed`
        ),
        refused(SINGLE_MILLIS)
      )
    ),
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logDebug("Failed to reserve a connection for the worker; trying again", cause),
        refused(RETRY_MILLIS)
      )
    ),
    Effect.forever
  )
}

/** Makes the two ways in which calls get a connection. */
const makeLending = (db: Database, reservation: Reservation) => {
  const { onConnection } = db
  /** Notes whether the connection works. */
  const noting =
    (held: Held | undefined) =>
    <A, E, R>(run: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      held === undefined
        ? run
        : Effect.onExit(run, (exit) =>
            Effect.sync(() => {
              if (Exit.isSuccess(exit)) trust(held)
              else held.trustedUntil = 0
            })
          )
  // the second begins only if the first does not end at once
  const lend: Effect.Effect<
    Pick<Held, "connection"> & { readonly held?: Held },
    SqlError.SqlError,
    Scope.Scope
  > = Effect.raceFirst(
    Effect.map(reserveFrom(db), (connection) => ({ connection })),
    Effect.andThen(
      sleep(PATIENCE_MILLIS),
      Effect.map(reservation.lend, (held) => ({ connection: held.connection, held }))
    )
  )
  const withFirstFree: WithSqlError = (effect) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Scope.make(), (scope) =>
        restore(Scope.provide(lend, scope)).pipe(
          Effect.flatMap(({ connection, held }) => noting(held)(restore(onConnection(connection)(effect)))),
          Effect.onExit((exit) => Scope.close(scope, exit))
        )
      )
    )
  const withReservedIfFree: WithSqlError = (effect) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(reservation.takeIfFree, (held) =>
        held === undefined
          ? restore(withFirstFree(effect))
          : restore(onConnection(held.connection)(effect)).pipe(
              noting(held),
              Effect.ensuring(held.turn.release(1))
            )
      )
    )
  return { withFirstFree, withReservedIfFree }
}

/** Reserves connections of the client of a database, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  db: Database
): Effect.fn.Return<ReservedConnection, never, Scope.Scope> {
  if (db.dialect.isLocalFile || connectionsOf(db.client) === 1) {
    return {
      withConnection: (effect) => effect,
      reads: (effect) => effect,
      claims: (effect) => effect,
      reserve: () => {},
      renew: Effect.void
    }
  }
  const reservation = new Reservation()
  const wanted = Latch.makeUnsafe(false)
  yield* Effect.addFinalizer(() => Effect.sync(() => reservation.drop()))
  yield* Effect.forkScoped(keepReserved(db, reservation, wanted))

  const unlessConnected =
    (lend: WithSqlError): WithSqlError =>
    <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.withFiber<A, E | SqlError.SqlError, R>(({ context }) =>
        db.hasConnection(context) || !wanted.isOpen() ? effect : lend(effect)
      )
  const { withFirstFree, withReservedIfFree } = makeLending(db, reservation)
  const withConnection = unlessConnected(withReservedIfFree)
  return {
    withConnection,
    reads: unlessConnected(withFirstFree),
    claims: (effect) =>
      Effect.suspend(() => {
        wanted.openUnsafe()
        return Effect.andThen(reservation.untilReserved, withConnection(effect))
      }),
    reserve: () => wanted.openUnsafe(),
    renew: Effect.sync(() => reservation.drop())
  }
})
