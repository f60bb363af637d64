/**
 * Bounds how long a call to a store may take.
 *
 * All calls of a store have the same timeout, so the oldest call is due first and one sleeping fiber serves all: a
 * timer for each would cost a single call a quarter of its time.
 */
import { Clock, type Context, Duration, Effect, Latch, type Scope } from "effect"

/** Fails a call when its time is up. Whether the call was carried out is unknown then. */
export type CallTimeout<out TimeoutError> = <A, E, R>(
  call: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | TimeoutError, R>

/** A call on its way. */
interface PendingCall {
  /** Monotonic nanoseconds. */
  readonly dueAt: bigint
  /** `undefined` once the call is over, so that its closure can be collected. */
  fail: ((cause: Error) => void) | undefined
}

/** The cause of the error of a call that took too long. */
export const timedOut = (timeout: Duration.Duration): Error =>
  new Error(`the store did not answer within ${Duration.format(timeout)}`)

/**
 * Makes a timeout; `toError` makes the error of a call that took too long. When the scope closes, calls on their way fail,
 * since nothing would bound them any more.
 */
export const make = Effect.fnUntraced(function* <TimeoutError>(
  timeout: Duration.Duration,
  toError: (cause: Error) => TimeoutError
): Effect.fn.Return<CallTimeout<TimeoutError>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const timeoutNanos = BigInt(Math.ceil(Duration.toMillis(timeout))) * 1_000_000n
  /** The oldest first. */
  const calls = new Set<PendingCall>()
  const hasCalls = Latch.makeUnsafe(false)

  const expireCalls = Effect.suspend(() => {
    const now = clock.monotonicTimeNanosUnsafe()
    for (const call of calls) {
      if (call.dueAt > now) return clock.sleep(Duration.millis(Math.ceil(Number(call.dueAt - now) / 1e6)))
      call.fail?.(timedOut(timeout))
    }
    hasCalls.closeUnsafe()
    return hasCalls.await
  })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const call of calls) call.fail?.(new Error("the store was closed"))
    })
  )
  // forever yields in between, so that a process that was paused reads the answers that came meanwhile before it fails calls
  yield* Effect.forkScoped(Effect.forever(expireCalls))

  return <A, E, R>(call: Effect.Effect<A, E, R>) =>
    Effect.withFiber<A, E | TimeoutError, R>(({ context }) =>
      Effect.callback((resume) => {
        const fiber = Effect.runForkWith(context as Context.Context<R>)(call)
        const exit = fiber.pollUnsafe()
        if (exit !== undefined) return resume(exit)
        const pending: PendingCall = {
          dueAt: clock.monotonicTimeNanosUnsafe() + timeoutNanos,
          fail: (cause) => {
            resume(Effect.fail(toError(cause)))
            fiber.interruptUnsafe()
          }
        }
        calls.add(pending)
        hasCalls.openUnsafe()
        fiber.addObserver((exit) => {
          pending.fail = undefined
          calls.delete(pending)
          resume(exit)
        })
        return Effect.sync(() => fiber.interruptUnsafe())
      })
    )
})
