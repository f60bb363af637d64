/** A file that says whether the workers of a process work. */
import { rename, rm, writeFile } from "node:fs/promises"
import { type Duration, Effect, type Scope } from "effect"
import type * as Worker from "../Worker.ts"

/** Writes the file in one step: a probe reads the old one or the new one. */
const write = (path: string, text: string): Effect.Effect<void, NodeJS.ErrnoException> => {
  const temporary = `${path}.${process.pid}.tmp`
  return Effect.tryPromise({
    try: () => writeFile(temporary, text).then(() => rename(temporary, path)),
    catch: (error) => error as NodeJS.ErrnoException
  }).pipe(
    Effect.tapError(() => remove(temporary)),
    // a write that went on after the end would leave the file behind
    Effect.uninterruptible
  )
}

const remove = (path: string): Effect.Effect<void> =>
  Effect.ignore(Effect.tryPromise(() => rm(path, { force: true })))

/**
 * Writes the file now and at every interval for as long as the workers are live, and removes it when the scope closes. Fails
 * if the first time fails; later failures are logged once until the file is written again.
 */
export const writeHealth = Effect.fnUntraced(function* (
  health: Effect.Effect<Worker.Health>,
  path: string,
  every: Duration.Duration
): Effect.fn.Return<void, NodeJS.ErrnoException, Scope.Scope> {
  yield* Effect.addFinalizer(() => remove(path))
  const writeIfLive = Effect.flatMap(health, (now) =>
    now.live ? write(path, `${JSON.stringify(now)}\n`) : Effect.void
  )
  yield* writeIfLive
  let isWritten = true
  const writeOrLog = Effect.matchEffect(writeIfLive, {
    onSuccess: () =>
      Effect.sync(() => {
        isWritten = true
      }),
    onFailure: (error) => {
      const isReported = !isWritten
      isWritten = false
      return isReported
        ? Effect.void
        : Effect.logWarning(`Failed to write the health file ${path}; trying again`, error)
    }
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(every), writeOrLog)))
})
