/** Counts what is under way, for those who wait until nothing is. */
import { Effect, Latch } from "effect"

/** Things that have begun and not ended. */
export class WaitGroup {
  private count = 0
  private readonly latch = Latch.makeUnsafe(true)

  add(): void {
    if (++this.count === 1) this.latch.closeUnsafe()
  }

  done(): void {
    if (--this.count === 0) this.latch.openUnsafe()
  }

  /** Waits until nothing is under way. */
  get wait(): Effect.Effect<void> {
    // the latch wakes who waits within `end`, whose caller goes on first
    return Effect.andThen(this.latch.await, Effect.yieldNow)
  }
}
