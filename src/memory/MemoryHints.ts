/** The hints of the memory store: which tasks may have changed since the last hint was taken. */
import { Effect, Latch, Stream } from "effect"

/** Pending ids beyond this number become one `resync`. */
const MAX_PENDING = 10_000

export class MemoryHints {
  private readonly subscribed = new Set<string>()
  private readonly pending = new Set<string>()
  private overflowed = false
  private readonly hasPending = Latch.makeUnsafe(false)

  subscribe(id: string): void {
    this.subscribed.add(id)
  }

  unsubscribe(id: string): void {
    this.subscribed.delete(id)
  }

  /** Hints a change of the task, if it is subscribed to. */
  notifyChange(id: string): void {
    if (this.subscribed.has(id)) this.notify(id)
  }

  /** Hints the task, whether or not it is subscribed to. */
  notify(id: string): void {
    if (this.overflowed) return
    this.pending.add(id)
    if (this.pending.size > MAX_PENDING) {
      this.pending.clear()
      this.overflowed = true
    }
    this.hasPending.openUnsafe()
  }

  private readonly take = Effect.sync((): ReadonlyArray<string> | "resync" => {
    const taken = this.overflowed ? "resync" : Array.from(this.pending)
    this.overflowed = false
    this.pending.clear()
    this.hasPending.closeUnsafe()
    return taken
  })

  // the latch resumes its waiters inside an operation; the changes of the rest of the turn join the same hint
  readonly stream: Stream.Stream<ReadonlyArray<string> | "resync"> = Stream.fromEffectRepeat(
    Effect.andThen(Effect.andThen(this.hasPending.await, Effect.yieldNow), this.take)
  )
}
