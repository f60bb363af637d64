/** The tasks of the tests with real processes, and what the processes tell of themselves: a line of JSON each. */
import { Task } from "chicory"
import { Schema } from "effect"

export class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", {
  item: Schema.String,
  since: Schema.Date
}) {}

const Run = Schema.Struct({ n: Schema.Int, pid: Schema.Int })

/** Gives the id of the process that ran it to its end; takes that long. */
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
 * Where a handler that writes stops in its first run, for that long: in the transaction, after its own write or also
 * after that of its outcome; after the commit.
 */
export const StopAt = Schema.Literals(["Nowhere", "Written", "Completed", "Committed"])
export type StopAt = typeof StopAt.Type

/** Writes a row of the table `written`, in the transaction that ends the task. */
export const Write = Task.make("write", {
  payload: {
    n: Schema.Int,
    stopAt: StopAt,
    millis: Schema.Int,
    /** Whether it goes on though it is interrupted. */
    stubborn: Schema.Boolean
  },
  success: Run,
  maxCrashes: 1000
})

export const ProcessEvent = Schema.Union([
  Schema.TaggedStruct("Ready", {}),
  /** The signal to stop came, and the worker is being stopped. */
  Schema.TaggedStruct("Stopping", {}),
  /** A handler began. */
  Schema.TaggedStruct("Began", { n: Schema.Int }),
  /** A handler stops there. */
  Schema.TaggedStruct("Stopped", { n: Schema.Int, at: StopAt }),
  /** A handler was interrupted. */
  Schema.TaggedStruct("Interrupted", { n: Schema.Int })
])
export type ProcessEvent = typeof ProcessEvent.Type

/** Tells the process that started this one. */
export const emit = (events: ProcessEvent): void => {
  process.stdout.write(`${JSON.stringify(events)}\n`)
}
