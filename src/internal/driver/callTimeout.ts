/**
 * How long a call to a store may take.
 *
 * All calls may take the same time, so the one that was made first is due first, and one sleeping fiber serves all: a
 * timer for each would cost a single call a quarter of its time.
 */
import { Clock, type Context, Duration, Effect, Latch, type Scope } from "effect"

/** Fails a call when its time is up. What became of it is unknown then. */
export type CallTimeout<out TooLate> = <A, E, R>(
  call: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | TooLate, R>

/** A call on its way. */
interface Underway {
  /** Monotonic nanoseconds. */
  readonly dueAt: bigint
  /** `undefined` when it is over, so that nothing of it is kept. */
  giveUp: (() => void) | undefined
}

/** A limit that holds until the scope closes. A call that took too long fails so. */
export const make = Effect.fnUntraced(function* <TooLate>(
  timeout: Duration.Duration,
  toError: (cause: Error) => TooLate
): Effect.fn.Return<CallTimeout<TooLate>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const allowed = BigInt(Math.ceil(Duration.toMillis(timeout))) * 1_000_000n
  /** In the order in which they were made. */
  const calls = new Set<Underway>()
  const some = Latch.makeUnsafe(false)

  const watch = Effect.suspend(() => {
    const now = clock.monotonicTimeNanosUnsafe()
    for (const call of calls) {
      if (call.dueAt > now) return clock.sleep(Duration.millis(Math.ceil(Number(call.dueAt - now) / 1e6)))
      call.giveUp?.()
    }
    some.closeUnsafe()
    return some.await
  })
  yield* Effect.forkScoped(Effect.forever(watch))

  const tooLate = Effect.fail(
    toError(new Error(`the server did not answer within ${Duration.format(timeout)}`))
  )
  return <A, E, R>(call: Effect.Effect<A, E, R>) =>
    Effect.withFiber<A, E | TooLate, R>((fiber) =>
      Effect.callback((resume) => {
        const calling = Effect.runForkWith(fiber.context as Context.Context<R>)(call)
        const done = calling.pollUnsafe()
        if (done !== undefined) return resume(done)
        const underway: Underway = {
          dueAt: clock.monotonicTimeNanosUnsafe() + allowed,
          giveUp: () => {
            resume(tooLate)
            calling.interruptUnsafe()
          }
        }
        calls.add(underway)
        some.openUnsafe()
        calling.addObserver((exit) => {
          underway.giveUp = undefined
          calls.delete(underway)
          resume(exit)
        })
        return Effect.sync(() => calling.interruptUnsafe())
      })
    )
})
