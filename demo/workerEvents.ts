/**
 * The events that a worker process reports: one line of JSON on its stdout for each.
 *
 * The audit compares them with the store's records.
 */
import { Console, Effect, Schema } from "effect"

/** An event of a worker. */
export const WorkerEvent = Schema.TaggedUnion({
  /** The worker claims tasks from now on, under this name. */
  Ready: { worker: Schema.String },
  /** A handler began to run the task. */
  RunStarted: { taskId: Schema.String },
  /** The worker has drained. The store accepted the outcomes of `accepted` of its runs. */
  Drained: { accepted: Schema.Int }
})

/** An event of a worker. */
export type WorkerEvent = typeof WorkerEvent.Type

const encode = Schema.encodeEffect(Schema.fromJsonString(WorkerEvent))

/** Writes an event to stdout. */
export const report = (event: WorkerEvent): Effect.Effect<void> =>
  encode(event).pipe(Effect.orDie, Effect.flatMap(Console.log))
