/**
 * Runs an effect once for each name, and shares a run that is under way. RabbitMQ tells a second declarer that a queue
 * exists before the queue works, so concurrent declarations of one name must not race.
 */
import { Deferred, Effect, Exit, type Scope } from "effect"

/** What has succeeded, and what is under way, by name. */
export class OncePerName<E> {
  private readonly scope: Scope.Scope
  private readonly done = new Set<string>()
  private readonly pending = new Map<string, Deferred.Deferred<void, E>>()

  /** Runs that are under way when `scope` closes are interrupted. */
  constructor(scope: Scope.Scope) {
    this.scope = scope
  }

  /** Waits until `effect` has succeeded for that name. A failure goes to all that wait, and the next call runs it again. */
  run(name: string, effect: Effect.Effect<unknown, E>): Effect.Effect<void, E> {
    return Effect.suspend(() => {
      if (this.done.has(name)) return Effect.void
      const pending = this.pending.get(name)
      if (pending !== undefined) return Deferred.await(pending)
      const started = Deferred.makeUnsafe<void, E>()
      this.pending.set(name, started)
      // forked, so that an interrupted caller does not end it for the others
      return effect.pipe(
        Effect.asVoid,
        Effect.onExit((exit) => {
          this.pending.delete(name)
          if (Exit.isSuccess(exit)) this.done.add(name)
          return Deferred.done(started, exit)
        }),
        Effect.forkIn(this.scope),
        Effect.andThen(Deferred.await(started))
      )
    })
  }

  has(name: string): boolean {
    return this.done.has(name)
  }

  /** Records a name as done that another process did. */
  add(name: string): void {
    this.done.add(name)
  }

  /** Forgets all names that are done, so that each runs again. */
  clear(): void {
    this.done.clear()
  }
}
