/**
 * What a worker process tells of itself: one line of JSON on its stdout for each entry.
 *
 * The accounts of the demo hold it against what the store says.
 */
import { Console, Effect, Schema } from "effect"

/** One line. */
export const Entry = Schema.TaggedUnion({
  /** The worker claims tasks from now on, under this name. */
  Ready: { worker: Schema.String },
  /** A handler began to run the task. */
  Began: { taskId: Schema.String },
  /** The worker has drained. So many of its runs ended their task: the store accepted what they wrote. */
  Left: { accepted: Schema.Int }
})

/** One line. */
export type Entry = typeof Entry.Type

const encode = Schema.encodeEffect(Schema.fromJsonString(Entry))

/** Writes a line. */
export const write = (entry: Entry): Effect.Effect<void> =>
  encode(entry).pipe(Effect.orDie, Effect.flatMap(Console.log))
