import { Effect, Latch, Stream } from "effect"
import type { ChangeKind, SubscribeUntil } from "./TaskNotifier.ts"

/** The tasks that this process has subscribed to, and the hints of them that were not taken yet. */
export class LocalSubscriptions {
  private readonly ends = new Set<string>()
  private readonly steps = new Set<string>()
  private pending = new Set<string>()
  private pendingResync = false
  private readonly hasPending = Latch.makeUnsafe(false)
  /** How many ids had their turn in `notifySome`. */
  private nextTurn = 0
  /** Whether the stream of hints runs. Hints are kept only then. */
  active = false

  /** Whether there are subscriptions. */
  get any(): boolean {
    return this.ends.size > 0
  }

  /** Whether there are subscriptions to every change. */
  get anySteps(): boolean {
    return this.steps.size > 0
  }

  add(ids: ReadonlyArray<string>, until: SubscribeUntil): void {
    for (const id of ids) {
      this.ends.add(id)
      if (until === "change") this.steps.add(id)
    }
  }

  remove(ids: ReadonlyArray<string>): void {
    for (const id of ids) {
      this.ends.delete(id)
      this.steps.delete(id)
    }
  }

  /** Hints at those ids that have a subscription to such a change. */
  notify(ids: ReadonlyArray<string>, kind: ChangeKind): void {
    const subscribed = kind === "end" ? this.ends : this.steps
    if (this.active && subscribed.size > 0) this.notifyAll(ids.filter((id) => subscribed.has(id)))
  }

  /** Hints at some ids that have a subscription to such a change: at others each time, until all had their turn. */
  notifySome(kind: ChangeKind, count: number): void {
    const ids = [...(kind === "end" ? this.ends : this.steps)]
    const start = this.nextTurn < ids.length ? this.nextTurn : 0
    this.nextTurn = start + count
    this.notifyAll(ids.slice(start, this.nextTurn))
  }

  /** Hints at all ids. */
  notifyAll(ids: ReadonlyArray<string>): void {
    if (!this.active || ids.length === 0) return
    for (const id of ids) this.pending.add(id)
    this.hasPending.openUnsafe()
  }

  /** Hints that any task may have changed. */
  resync(): void {
    this.pendingResync = true
    this.hasPending.openUnsafe()
  }

  /** The hints, as they come. */
  readonly hints: Stream.Stream<ReadonlyArray<string> | "resync"> = Stream.fromEffectRepeat(
    Effect.andThen(
      Effect.suspend(() => this.hasPending.await),
      Effect.sync(() => this.take())
    )
  )

  private take(): ReadonlyArray<string> | "resync" {
    this.hasPending.closeUnsafe()
    const { pending, pendingResync } = this
    this.pending = new Set()
    this.pendingResync = false
    return pendingResync ? "resync" : [...pending]
  }
}
