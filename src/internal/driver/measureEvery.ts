/** Measures what has to be asked of a store, for gauges. */
import { Duration, Effect, type Scope } from "effect"
import { untraced } from "../tracing.ts"
import type { Outages } from "./Outages.ts"

/** How long a measurement may take. */
const TIMEOUT = Duration.seconds(30)

/**
 * Measures at once, and then at intervals until the scope closes. When a measurement fails, `remove` removes the series,
 * since an old value would look like a new one; the next measurement that succeeds sets them again.
 */
export const measureEvery = Effect.fnUntraced(function* <E>(options: {
  /** What is measured, for the log. */
  readonly what: string
  readonly outages: Outages
  readonly interval: Duration.Duration
  readonly measure: Effect.Effect<void, E>
  readonly remove: Effect.Effect<void>
}): Effect.fn.Return<void, never, Scope.Scope> {
  const { interval, measure, outages, remove, what } = options
  const log = outages.background(`measure ${what}`)
  yield* Effect.addFinalizer(() => remove)
  yield* untraced(measure).pipe(
    Effect.timeout(TIMEOUT),
    Effect.matchCauseEffect({
      onFailure: (cause) => Effect.andThen(remove, log.failed(cause)),
      onSuccess: () => log.succeeded
    }),
    Effect.andThen(Effect.sleep(interval)),
    Effect.forever,
    Effect.forkScoped
  )
})
