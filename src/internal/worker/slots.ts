/** The places of a worker in which tasks run: a worker claims no more than are free. */
import { Effect } from "effect"

/** Counts free places. */
export class Slots {
  readonly total: number
  private free: number
  private readonly waiting = new Set<() => void>()

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
    return Effect.suspend(() => {
      if (this.free > 0) return this.takeFree(max)
      // what frees one place often frees more in the same turn
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

  /** Gives places back. */
  give(count: number): void {
    this.free += count
    if (this.free <= 0) return
    for (const wake of this.waiting) wake()
    this.waiting.clear()
  }
}

/** A place that a handler holds. It is free while at least one of the handler's fibers waits. */
export class Slot {
  private readonly slots: Slots
  private held = true
  private waiting = 0

  constructor(slots: Slots) {
    this.slots = slots
  }

  /** Gives the place free while the effect runs; whoever is the last to go on waits for one. */
  without<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.acquireUseRelease(
      Effect.sync(() => this.leave()),
      () => effect,
      () => this.goOn()
    )
  }

  private leave(): void {
    this.waiting++
    if (!this.held) return
    this.held = false
    this.slots.give(1)
  }

  private goOn(): Effect.Effect<void> {
    this.waiting--
    if (this.waiting > 0 || this.held) return Effect.void
    return Effect.map(this.slots.take(1), () => {
      // meanwhile another fiber of the handler may have begun to wait, or have taken a place
      if (this.waiting > 0 || this.held) this.slots.give(1)
      else this.held = true
    })
  }
}
