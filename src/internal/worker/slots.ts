/** The slots of a worker: it runs as many tasks at a time, and claims no more than are free. */
import { Effect } from "effect"

/** Counts free slots. */
export class Slots {
  readonly total: number
  /** Free slots. Negative while runs that could not wait for a slot are beyond the total. */
  free: number
  /** Fibers that claim. */
  private readonly claiming = new Set<() => void>()
  /** Runs that resume, which go before claims. */
  private readonly resuming = new Set<() => void>()

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

  /** Waits until a slot is free, without taking it. */
  readonly untilFree: Effect.Effect<void> = Effect.suspend(() =>
    this.free > 0 ? Effect.void : this.whenFree
  )

  private takeFree(max: number): Effect.Effect<number> {
    const taken = Math.min(this.free, max)
    this.free -= taken
    return Effect.succeed(taken)
  }

  private readonly whenFree: Effect.Effect<void> = Effect.callback((resume) => {
    const wake = () => resume(Effect.void)
    this.claiming.add(wake)
    return Effect.sync(() => this.claiming.delete(wake))
  })

  /** Takes one slot for a run that resumes: calls `onTaken`, possibly at once. Returns how to withdraw the request. */
  request(onTaken: () => void): () => void {
    if (this.free > 0) {
      this.free--
      onTaken()
    } else this.resuming.add(onTaken)
    return () => this.resuming.delete(onTaken)
  }

  /** Takes one slot whether or not one is free. Nothing is claimed until as many are given back. */
  takeOver(): void {
    this.free--
  }

  /** Frees slots. */
  give(count: number): void {
    this.free += count
    for (const onTaken of this.resuming) {
      if (this.free <= 0) return
      this.resuming.delete(onTaken)
      this.free--
      onTaken()
    }
    if (this.free <= 0) return
    for (const wake of this.claiming) wake()
    this.claiming.clear()
  }
}
