/** Counts what is under way, for those who wait until nothing is. */
import { Effect, Latch } from "effect"

/** Things that have begun and not ended. */
export class Underway {
  private count = 0
  private readonly latch = Latch.makeUnsafe(true)

  begin(): void {
    if (++this.count === 1) this.latch.closeUnsafe()
  }

  end(): void {
    if (--this.count === 0) this.latch.openUnsafe()
  }

  /** Waits until nothing is under way. */
  get none(): Effect.Effect<void> {
    // the latch wakes who waits within `end`, whose caller goes on first
    return Effect.andThen(this.latch.await, Effect.yieldNow)
  }
}
