/** Counts operations in flight, and lets fibers wait until there are none. */
import { Effect, Latch } from "effect"

/** A counter of work in flight. */
export class WaitGroup {
  private count = 0
  private readonly latch = Latch.makeUnsafe(true)

  add(): void {
    if (++this.count === 1) this.latch.closeUnsafe()
  }

  done(): void {
    if (--this.count === 0) this.latch.openUnsafe()
  }

  /** How many operations are in flight. */
  get size(): number {
    return this.count
  }

  /** Whether the count is zero. */
  get isEmpty(): boolean {
    return this.count === 0
  }

  /** Waits until the count is zero. */
  get wait(): Effect.Effect<void> {
    // the latch resumes its waiters inside `done`, before the caller of `done` has finished
    return Effect.andThen(this.latch.await, Effect.yieldNow)
  }
}
