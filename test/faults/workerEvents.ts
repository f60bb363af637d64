/** What workers and producers tell of themselves, as it happens; what a process tells before it is killed is not lost. */
import { Schema } from "effect"

export const WorkerEvent = Schema.Union([
  Schema.TaggedStruct("Ready", {}),
  /** A handler began. */
  Schema.TaggedStruct("Began", { id: Schema.String, retries: Schema.Int, fence: Schema.Int }),
  /** A handler was interrupted. */
  Schema.TaggedStruct("Interrupted", { id: Schema.String }),
  /** The store answered what became of the end of a run. */
  Schema.TaggedStruct("Settled", {
    id: Schema.String,
    token: Schema.String,
    outcome: Schema.Literals(["Success", "Failure", "Retry", "Release"]),
    exit: Schema.NullOr(Schema.String),
    answer: Schema.Literals(["Stored", "Cancelled", "Lost"])
  }),
  /** A producer was told that its task is accepted. */
  Schema.TaggedStruct("Accepted", { id: Schema.String, n: Schema.Int }),
  /** The point at which it dies. */
  Schema.TaggedStruct("Reached", { point: Schema.String }),
  /** What it holds. */
  Schema.TaggedStruct("Sampled", { heap: Schema.Int, rss: Schema.Int, handles: Schema.Int }),
  /** What it logged, and where that was said to be a warning or worse. */
  Schema.TaggedStruct("Warned", { message: Schema.String })
])
export type WorkerEvent = typeof WorkerEvent.Type

/** Takes in what is told. */
export type Emit = (event: WorkerEvent) => void

/** Tells the process that started this one. */
export const emit: Emit = (event) => {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}
