/** The places of a worker in which tasks run: a worker claims no more than are free. */
import { Effect } from "effect"

/** Counts free places. */
export class Slots {
  readonly total: number
  private free: number
  private readonly waiting: Array<() => void> = []

  constructor(total: number) {
    this.total = total
    this.free = total
  }

  /** Places that are taken. */
  get taken(): number {
    return this.total - this.free
  }

  /** Takes as many places as are free, at most `max`; waits until there is one. */
  take(max: number): Effect.Effect<number> {
    return Effect.callback((resume) => {
      const attempt = () => {
        if (this.free <= 0) {
          this.waiting.push(attempt)
          return
        }
        const taken = Math.min(this.free, max)
        this.free -= taken
        resume(Effect.succeed(taken))
      }
      attempt()
      return Effect.sync(() => {
        const i = this.waiting.indexOf(attempt)
        if (i >= 0) this.waiting.splice(i, 1)
      })
    })
  }

  /** Gives places back. */
  give(count: number): void {
    this.free += count
    while (this.free > 0 && this.waiting.length > 0) this.waiting.shift()!()
  }

  /** Gives one place free while the effect runs, and waits for one before it goes on. */
  without<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.acquireUseRelease(
      Effect.sync(() => this.give(1)),
      () => effect,
      () => this.take(1)
    )
  }
}
