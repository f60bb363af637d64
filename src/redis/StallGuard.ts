/**
 * Holds calls back while a server does not answer.
 *
 * A call that is given up after `callTimeout` stays on its way: the server carries it out when it answers again. If every
 * repetition were sent too, the server would first carry out all of them, after a stall of a minute for minutes, although
 * their callers have given up. A connection answers in order, so after a call was given up, calls wait until a probe is
 * answered.
 */
import { Effect, Latch, type Scope } from "effect"

/** A probe that is not answered for so long may have been lost: calls are sent again. */
const PROBE_TIMEOUT = "30 seconds"

/** Guards the calls to one server. */
export interface StallGuard {
  /** Delays a call until the server answers. */
  readonly guard: <A, E>(call: Effect.Effect<A, E>) => Effect.Effect<A, E>
  /** Tells that a call was given up. */
  readonly onTimeout: Effect.Effect<void>
}

/** Makes a guard. The probe is a call that the server answers after all that were sent before. */
export const make = Effect.fnUntraced(function* (
  probe: Effect.Effect<unknown, unknown>
): Effect.fn.Return<StallGuard, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const answers = Latch.makeUnsafe(true)
  const probing = probe.pipe(
    Effect.timeoutOption(PROBE_TIMEOUT),
    Effect.ignore,
    Effect.ensuring(answers.open)
  )
  return {
    guard: (call) => Effect.suspend(() => (answers.isOpen() ? call : Effect.andThen(answers.await, call))),
    onTimeout: Effect.suspend(() => {
      if (!answers.isOpen()) return Effect.void
      answers.closeUnsafe()
      return Effect.asVoid(Effect.forkIn(probing, scope))
    })
  }
})
