/** The tasks and events of the tests with real processes; an event is a line of JSON. */
import { Task } from "chicory"
import { Schema } from "effect"

export class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", {
  item: Schema.String,
  since: Schema.Date
}) {}

const Run = Schema.Struct({ n: Schema.Int, pid: Schema.Int })

/** Takes `millis` and returns the id of the process that ran it. */
export const Count = Task.make("count", {
  payload: { n: Schema.Int, millis: Schema.Int },
  success: Run
})

export const Order = Task.make("order", { payload: Schema.String, error: OutOfStock })

export const Keyed = Task.make("keyed", {
  payload: Schema.Int,
  success: Schema.Int,
  idempotencyKey: (n) => `key ${n}`
})

/**
 * Where the first run of a writing handler pauses: in the transaction after its own write or after its outcome's, or
 * after the commit.
 */
export const StopAt = Schema.Literals(["Nowhere", "Written", "Completed", "Committed"])
export type StopAt = typeof StopAt.Type

/** Writes a row into the table `written` in the transaction that ends the task. */
export const Write = Task.make("write", {
  payload: {
    n: Schema.Int,
    stopAt: StopAt,
    millis: Schema.Int,
    /** Whether it ignores interruption. */
    stubborn: Schema.Boolean
  },
  success: Run,
  maxCrashes: 1000
})

export const ProcessEvent = Schema.Union([
  Schema.TaggedStruct("Ready", {}),
  /** The stop signal came and the worker is stopping. */
  Schema.TaggedStruct("Stopping", {}),
  /** A handler began. */
  Schema.TaggedStruct("Began", { n: Schema.Int }),
  /** A handler pauses at that point. */
  Schema.TaggedStruct("Stopped", { n: Schema.Int, at: StopAt }),
  /** A handler was interrupted. */
  Schema.TaggedStruct("Interrupted", { n: Schema.Int })
])
export type ProcessEvent = typeof ProcessEvent.Type

/** Writes an event to the process that started this one. */
export const emit = (events: ProcessEvent): void => {
  process.stdout.write(`${JSON.stringify(events)}\n`)
}
