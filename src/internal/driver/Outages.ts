/**
 * Logs the outages of a store: a line when one begins and a line when it is over, whatever fails meanwhile.
 *
 * Everything in a process that calls a store shares this, so that an outage that claims, renewals, settlements, waiters and
 * connections notice is logged once. What fails during an outage is logged at Debug.
 */
import { Cause, Clock, Effect, Option } from "effect"

/** After an outage that was logged, a shorter one is not logged for a while: a store that fails now and then is no news. */
const QUIET_NANOS = 60_000_000_000n
const SHORT_NANOS = 5_000_000_000n
/** How long something that the worker can do without fails before it is logged. */
const BACKGROUND_NANOS = 30_000_000_000n
/** How long an error that no repetition mends is not logged again. */
const AGAIN_NANOS = 3_600_000_000_000n
/** How long the store has to answer until such an error is over: it may be that of some calls alone. */
const MENDED_NANOS = 60_000_000_000n

const seconds = (nanos: bigint): string => `${(Number(nanos) / 1e9).toFixed(1)} s`

/** Whether no repetition mends what failed, such as a missing permission. */
const isPermanent = (cause: Cause.Cause<unknown>): boolean => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return (
    typeof error === "object" &&
    error !== null &&
    (error as { readonly retryable?: unknown }).retryable === false
  )
}

/** A logger that throws must not end the loop that logs. */
const withNow = (log: (now: bigint) => Effect.Effect<void>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => Effect.ignoreCause(log(fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe())))

/** How the failures of a background task are counted. */
export interface BackgroundOptions {
  /**
   * Whether it may work for long without a success, as a stream does to which nothing comes. Then a failure long after the
   * last one is taken for the first after a success. Default `false`: it reports each of its successes.
   */
  readonly mayBeSilent?: boolean
}

/** What a process repeats beside its calls, such as heartbeats or subscriptions. It can do without for a while. */
export interface BackgroundTask {
  readonly failed: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  readonly succeeded: Effect.Effect<void>
}

/** The outages of one store. Times are nanoseconds of the monotonic clock. */
export class Outages {
  private readonly store: string
  private beganAt: bigint | undefined
  private isLogged = false
  /** When the last outage that was logged ended. */
  private endedAt: bigint | undefined
  /** When the first of the errors came that no repetition mends, and when one was logged last. */
  private permanentSince: bigint | undefined
  private permanentAt: bigint | undefined
  /** Since when the store has answered, after such an error. */
  private answeredSince: bigint | undefined
  private lostConnections = 0
  /** Since when a connection is lost that the store holds open; `undefined`: none is. */
  connectionLostAt: bigint | undefined

  constructor(store: string) {
    this.store = store
  }

  /** Whether calls fail. */
  get isOngoing(): boolean {
    return this.beganAt !== undefined
  }

  /** A call has failed, and will be repeated: an outage begins or goes on. */
  failed(cause: Cause.Cause<unknown>): Effect.Effect<void> {
    return withNow((now) => {
      this.beganAt ??= now
      this.answeredSince = undefined
      if (isPermanent(cause)) {
        this.permanentSince ??= now
        if (this.permanentAt !== undefined && now - this.permanentAt < AGAIN_NANOS) return this.debug(cause)
        this.permanentAt = now
        return Effect.logError(
          `Failed to call the store ${this.store}; calls fail until the cause is mended`,
          cause
        )
      }
      const isShort =
        this.endedAt !== undefined && now - this.endedAt < QUIET_NANOS && now - this.beganAt < SHORT_NANOS
      if (this.isLogged || isShort) return this.debug(cause)
      this.isLogged = true
      return Effect.logWarning(
        `Failed to call the store ${this.store}; calls are repeated until it answers again`,
        cause
      )
    })
  }

  private debug(cause: Cause.Cause<unknown>): Effect.Effect<void> {
    return Effect.logDebug(`Failed to call the store ${this.store}; trying again`, cause)
  }

  /** A call was answered: an outage is over, unless a connection is lost. */
  get succeeded(): Effect.Effect<void> {
    const hasFailed = this.beganAt !== undefined || this.permanentSince !== undefined
    return hasFailed && this.lostConnections === 0 ? this.answered : Effect.void
  }

  private readonly answered: Effect.Effect<void> = withNow((now) =>
    Effect.andThen(this.end(now), this.endPermanent(now))
  )

  private end(now: bigint): Effect.Effect<void> {
    const { beganAt, isLogged } = this
    this.beganAt = undefined
    this.isLogged = false
    if (!isLogged || beganAt === undefined) return Effect.void
    this.endedAt = now
    return this.recovered(now - beganAt)
  }

  private endPermanent(now: bigint): Effect.Effect<void> {
    const { permanentSince } = this
    if (permanentSince === undefined) return Effect.void
    const answeredSince = (this.answeredSince ??= now)
    if (now - answeredSince < MENDED_NANOS) return Effect.void
    this.permanentSince = undefined
    this.permanentAt = undefined
    this.answeredSince = undefined
    return this.recovered(answeredSince - permanentSince)
  }

  private recovered(after: bigint): Effect.Effect<void> {
    return Effect.logInfo(`The store ${this.store} answers again; it recovered after ${seconds(after)}`)
  }

  /** A connection is lost. While it is, calls that are answered without it end no outage. */
  connectionLost(cause: Cause.Cause<unknown>): Effect.Effect<void> {
    this.lostConnections++
    return Effect.andThen(
      withNow((now) => {
        this.connectionLostAt ??= now
        return Effect.void
      }),
      this.failed(cause)
    )
  }

  get connectionRestored(): Effect.Effect<void> {
    this.lostConnections--
    if (this.lostConnections === 0) this.connectionLostAt = undefined
    return this.succeeded
  }

  /** Makes the log of a background task; `what` completes "Failed to". */
  background(what: string, { mayBeSilent = false }: BackgroundOptions = {}): BackgroundTask {
    let failingSince: bigint | undefined
    let failedAt = 0n
    let isLogged = false
    let permanentAt: bigint | undefined
    const again = withNow((now) => {
      const after = now - (failingSince ?? now)
      const wasLogged = isLogged
      failingSince = undefined
      isLogged = false
      permanentAt = undefined
      return wasLogged
        ? Effect.logInfo(`Recovered after ${seconds(after)} of failures to ${what}`)
        : Effect.void
    })
    return {
      failed: (cause) =>
        withNow((now) => {
          const hasWorked = mayBeSilent && now - failedAt > BACKGROUND_NANOS
          // an outage is logged as such
          if (failingSince === undefined || this.isOngoing || hasWorked) failingSince = now
          failedAt = now
          const since = failingSince
          if (isPermanent(cause)) {
            if (permanentAt === undefined || now - permanentAt >= AGAIN_NANOS) {
              permanentAt = now
              isLogged = true
              return Effect.logError(`Failed to ${what}; it fails until the cause is mended`, cause)
            }
          } else if (!isLogged && now - since >= BACKGROUND_NANOS) {
            isLogged = true
            return Effect.logWarning(`Failed to ${what} for ${seconds(now - since)}; trying again`, cause)
          }
          return Effect.logDebug(`Failed to ${what}; trying again`, cause)
        }),
      get succeeded() {
        return failingSince === undefined ? Effect.void : again
      }
    }
  }
}

const shared = new WeakMap<object, Outages>()

/** Returns the outages of a store; drivers and services that name the same store share them. */
export const outagesOf = (store: object | undefined, name: string): Outages => {
  if (store === undefined) return new Outages(name)
  let outages = shared.get(store)
  if (outages === undefined) shared.set(store, (outages = new Outages(name)))
  return outages
}
