/** Writes the progress of the run whose handler calls it. */
import { Effect } from "effect"
import { TaskContext } from "../../TaskContext.ts"
import { bytesOf } from "../defaults.ts"
import { CurrentRun } from "../task/CurrentRun.ts"
import type { TaskDefinition } from "../task/TaskDefinition.ts"

/**
 * Encodes a value and writes it as the progress of the current run. Dies if the handler is that of another task, or if
 * the value does not encode or is too large. Does nothing where the run keeps no progress.
 */
export const writeProgress = (
  definition: TaskDefinition,
  value: unknown
): Effect.Effect<void, never, unknown> =>
  Effect.gen(function* () {
    const { taskName } = yield* TaskContext
    const run = yield* CurrentRun
    if (taskName !== definition.name) {
      const where = `${definition.name}.progress was called in the handler of ${taskName}`
      const hint =
        run === undefined
          ? `; in a test, give the handler Testing.context({ taskName: "${definition.name}" })`
          : ""
      return yield* Effect.die(new TypeError(where + hint))
    }
    if (run === undefined) return
    const progress = yield* Effect.orDie(definition.result.encodeProgress(value))
    const { maxBytes } = run
    const bytes = bytesOf(progress, maxBytes)
    if (bytes > maxBytes) {
      return yield* Effect.die(
        new RangeError(
          `the progress of ${taskName} has ${bytes} bytes, of at most ${maxBytes}: store it elsewhere and give its address`
        )
      )
    }
    yield* run.writeProgress(progress)
  })
