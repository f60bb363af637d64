/** Which spans reach the tracer of a program. */
import { Context, Duration, Effect, Tracer } from "effect"

/** Whether the library's own work makes spans. */
export const internalSpans = Context.Reference<boolean>("chicory/Tracing/internal", {
  defaultValue: () => false
})

/** How long after its enqueue a run is a child of the producer's span. */
export const linkAfter = Context.Reference<Duration.Input>("chicory/Tracing/linkAfter", {
  defaultValue: () => Duration.hours(1)
})

/** Returns whether spans reach a tracer. */
export const isTraced = ({
  tracer,
  tracerEnabled
}: {
  readonly tracer: Tracer.Tracer | undefined
  readonly tracerEnabled: boolean
}): boolean => tracer !== undefined && tracer !== Tracer.nativeTracer && tracerEnabled

/**
 * Runs work of the library, such as a layer that is built, without spans unless `internalSpans` asks for them. Holds for
 * all fibers that it makes.
 */
export const untraced = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) =>
    fiber.getRef(internalSpans) ? effect : Effect.withTracerEnabled(effect, false)
  )
