/** A tracer whose spans a test looks at. */
import { Effect, Tracer } from "effect"

/** A tracer that keeps its spans, in the order of their starts. */
export interface RecordingTracer {
  readonly spans: ReadonlyArray<Tracer.Span>
  /** Returns the spans of a name. */
  readonly named: (name: string) => ReadonlyArray<Tracer.Span>
  /** The names of all spans. */
  readonly names: () => ReadonlyArray<string>
  /** Runs an effect with the tracer. */
  readonly trace: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Makes a tracer that keeps its spans. */
export const makeRecordingTracer = (): RecordingTracer => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return {
    spans,
    named: (name) => spans.filter((span) => span.name === name),
    names: () => spans.map(({ name }) => name),
    trace: Effect.withTracer(tracer)
  }
}
