import { Effect } from "effect"

/** Waits by the clock of the machine: what it waits for goes by the clock of a database, and not by `Clock`. */
export const sleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })
