/** Records how long the calls of a broker take, and by which error they fail. */
import { Cause, Clock, Effect, Exit } from "effect"
import { errorTag } from "../errorText.ts"
import * as metrics from "../metrics.ts"

/** Returns the tag of the error that a call failed with: that of its `reason` where the error is a wrapper with one. */
const errorTypeOf = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasInterruptsOnly(cause)) return "Interrupt"
  const error = Cause.squash(cause)
  const reason = typeof error === "object" && error !== null && "reason" in error ? error.reason : undefined
  return errorTag(typeof reason === "object" && reason !== null && "_tag" in reason ? reason : error)
}

/** Records the duration of each call of an operation. */
export const timed =
  (system: string) =>
  (operation: string) =>
  <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock.Clock)
      const start = clock.monotonicTimeNanosUnsafe()
      return Effect.onExit(call, (exit) =>
        Effect.sync(() => {
          const seconds = Number(clock.monotonicTimeNanosUnsafe() - start) / 1e9
          const errorType = Exit.isSuccess(exit) ? "" : errorTypeOf(exit.cause)
          metrics.forOperation(system, operation, errorType).updateUnsafe(seconds, fiber.context)
        })
      )
    })
