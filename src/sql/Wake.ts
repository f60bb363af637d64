/**
 * Tells a process that another one wrote to the database.
 */
import type { Effect, Scope } from "effect"

/** Each store has its own way. */
export interface Wake {
  /**
   * Calls back when another process, or another connection, may have written. It may do so for nothing, and late.
   * Until the scope closes.
   */
  readonly listen: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
  /** Waits by the clock of the machine, which is that of the store. */
  readonly sleep: (millis: number) => Effect.Effect<void>
}
