/** The tasks of the load tests. */
import { Task } from "chicory"
import { Schema } from "effect"

/** Marks its number. */
export const Mark = Task.make("mark", { payload: Schema.Int, success: Schema.Int })

const Large = Schema.Struct({ n: Schema.Int, text: Schema.String })

/** Gives back what it is given, which is large. */
export const Copy = Task.make("copy", { payload: Large, success: Large })

/** Waits at the gate. */
export const Wait = Task.make("wait", { payload: Schema.Int, success: Schema.Int })

/** A text of so many characters that no other number has. */
export const textOf = (n: number, size: number): string =>
  `${n} `.repeat(Math.ceil(size / `${n} `.length)).slice(0, size)

/** Of so many tasks, one in so many is looked at afterwards. */
export const sampleInterval = (count: number): number => Math.ceil(count / 200)
