/** Keeps the library's own work from the user's tracer. */
import { Context, Effect } from "effect"

/** Whether the library's own work makes spans. */
export const internalSpans = Context.Reference<boolean>("chicory/Tracing/internal", {
  defaultValue: () => false
})

/**
 * Runs work of the library, such as a layer that is built, without spans unless `internalSpans` asks for them. Holds for
 * all fibers that it makes.
 */
export const untraced = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) =>
    fiber.getRef(internalSpans) ? effect : Effect.withTracerEnabled(effect, false)
  )
