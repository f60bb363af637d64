/** The slots of a worker: it runs as many tasks at a time, and claims no more than are free. */
import { Effect } from "effect"

/** Counts free slots. */
export class Slots {
  readonly total: number
  /** Free slots. */
  free: number
  private readonly waiting = new Set<() => void>()

  constructor(total: number) {
    this.total = total
    this.free = total
  }

  /** Takes as many slots as are free, at most `max`; waits until one is. */
  take(max: number): Effect.Effect<number> {
    return Effect.suspend(() => {
      if (this.free > 0) return this.takeFree(max)
      // whatever frees one slot often frees more in the same turn
      return this.whenFree.pipe(
        Effect.andThen(Effect.yieldNow),
        Effect.andThen(Effect.suspend(() => this.take(max)))
      )
    })
  }

  private takeFree(max: number): Effect.Effect<number> {
    const taken = Math.min(this.free, max)
    this.free -= taken
    return Effect.succeed(taken)
  }

  private readonly whenFree: Effect.Effect<void> = Effect.callback((resume) => {
    const wake = () => resume(Effect.void)
    this.waiting.add(wake)
    return Effect.sync(() => this.waiting.delete(wake))
  })

  /** Frees slots. */
  give(count: number): void {
    this.free += count
    if (this.free <= 0) return
    for (const wake of this.waiting) wake()
    this.waiting.clear()
  }
}

/** The slot of a handler. It is free while at least one of the handler's fibers waits. */
export class Slot {
  private readonly slots: Slots
  private held = true
  private waiting = 0

  constructor(slots: Slots) {
    this.slots = slots
  }

  /** Frees the slot while the effect runs. When the last waiting fiber resumes, it waits for a slot. */
  without<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.acquireUseRelease(
      Effect.sync(() => this.suspend()),
      () => effect,
      () => this.resume()
    )
  }

  private suspend(): void {
    this.waiting++
    if (!this.held) return
    this.held = false
    this.slots.give(1)
  }

  private resume(): Effect.Effect<void> {
    this.waiting--
    if (this.waiting > 0 || this.held) return Effect.void
    return Effect.map(this.slots.take(1), () => {
      // meanwhile another fiber of the handler may have begun to wait, or have taken a slot
      if (this.waiting > 0 || this.held) this.slots.give(1)
      else this.held = true
    })
  }
}
