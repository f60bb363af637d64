/** The tasks of the load tests. */
import { Task } from "chicory"
import { Schema } from "effect"

/** Marks its number. */
export const Mark = Task.make("mark", { payload: Schema.Int, success: Schema.Int })

const Large = Schema.Struct({ n: Schema.Int, text: Schema.String })

/** Returns its payload, which is large. */
export const Copy = Task.make("copy", { payload: Large, success: Large })

/** Waits at the gate. */
export const Wait = Task.make("wait", { payload: Schema.Int, success: Schema.Int })

/** Returns a text of that many characters that is unique for the number. */
export const textOf = (n: number, size: number): string =>
  `${n} `.repeat(Math.ceil(size / `${n} `.length)).slice(0, size)

/** Returns the distance between sampled tasks: 200 of them are checked afterwards. */
export const sampleInterval = (count: number): number => Math.ceil(count / 200)
