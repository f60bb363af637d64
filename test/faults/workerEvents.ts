/** Events of workers and producers, written as they happen, so that a killed process loses none. */
import { Schema } from "effect"

export const WorkerEvent = Schema.Union([
  Schema.TaggedStruct("Ready", {}),
  /** A handler began. */
  Schema.TaggedStruct("Began", { id: Schema.String, retries: Schema.Int, fence: Schema.Int }),
  /** A handler was interrupted. */
  Schema.TaggedStruct("Interrupted", { id: Schema.String }),
  /** The store answered a settlement. */
  Schema.TaggedStruct("Settled", {
    id: Schema.String,
    token: Schema.String,
    outcome: Schema.Literals(["Success", "Failure", "Retry", "Release"]),
    exit: Schema.NullOr(Schema.String),
    answer: Schema.Literals(["Stored", "Cancelled", "Lost"])
  }),
  /** An enqueue of a producer was accepted. */
  Schema.TaggedStruct("Accepted", { id: Schema.String, n: Schema.Int }),
  /** The process has reached its kill point. */
  Schema.TaggedStruct("Reached", { point: Schema.String }),
  /** A sample of the process's resources. */
  Schema.TaggedStruct("Sampled", { heap: Schema.Int, rss: Schema.Int, handles: Schema.Int }),
  /** A line was logged at Info or above. */
  Schema.TaggedStruct("Logged", { message: Schema.String })
])
export type WorkerEvent = typeof WorkerEvent.Type

/** Receives an event. */
export type Emit = (event: WorkerEvent) => void

/** Writes an event to the process that started this one. */
export const emit: Emit = (event) => {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}
