/** How those who wait learn that a task changed. Each kind of database has its own way to other processes. */
import { Effect, Latch, Stream } from "effect"
import type { StoreError } from "../Database.ts"

/** Until when somebody watches a task. */
export type SubscribeUntil = "change" | "end"

/** What changed: a step on the way, or what may be the end. */
export type ChangeKind = "step" | "end"

/** What the operations need of it. */
export interface TaskNotifier {
  /** Leaves the ids for other processes. Belongs into the transaction that changes them. */
  readonly recordChanges: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** The same, whether or not somebody waits. */
  readonly recordChangesForAll: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** Tells, after the commit, those who watch the ids. */
  readonly notify: (ids: ReadonlyArray<string>, kind: ChangeKind) => void
  /** The same in this process alone: of records that came, nobody else waits to hear. */
  readonly notifyLocal: (ids: ReadonlyArray<string>) => void
  /** Tells everyone. */
  readonly notifyAll: (ids: ReadonlyArray<string>) => void
  /** Registers interest. What is read after it misses nothing. */
  readonly subscribe: (ids: ReadonlyArray<string>, until: SubscribeUntil) => Effect.Effect<void, StoreError>
  readonly unsubscribe: (ids: ReadonlyArray<string>) => void
  readonly hints: Stream.Stream<ReadonlyArray<string> | "resync", StoreError>
  /** Removes what is too old to be of use. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** Tells nobody: whoever waits has to read. */
export const silent: TaskNotifier = {
  recordChanges: () => Effect.void,
  recordChangesForAll: () => Effect.void,
  notify: () => {},
  notifyLocal: () => {},
  notifyAll: () => {},
  subscribe: () => Effect.void,
  unsubscribe: () => {},
  hints: Stream.never,
  trim: Effect.void
}

/** What this process watches, and what it was told of it and has not taken yet. */
export class LocalSubscriptions {
  private readonly ends = new Set<string>()
  private readonly steps = new Set<string>()
  private told = new Set<string>()
  private resync = false
  private readonly news = Latch.makeUnsafe(false)
  /** Whether somebody takes it. */
  listening = false

  /** Whether anything is watched. */
  get some(): boolean {
    return this.ends.size > 0
  }

  /** Whether anything is watched for every change. */
  get someSteps(): boolean {
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

  /** Of those that are watched for it. */
  tell(ids: ReadonlyArray<string>, kind: ChangeKind): void {
    const watched = kind === "end" ? this.ends : this.steps
    if (this.listening && watched.size > 0) this.tellAll(ids.filter((id) => watched.has(id)))
  }

  /** Of all of them. */
  tellAll(ids: ReadonlyArray<string>): void {
    if (!this.listening || ids.length === 0) return
    for (const id of ids) this.told.add(id)
    this.news.openUnsafe()
  }

  /** Anything may have changed. */
  tellResync(): void {
    this.resync = true
    this.news.openUnsafe()
  }

  /** What was told, as it comes. */
  readonly stream: Stream.Stream<ReadonlyArray<string> | "resync"> = Stream.fromEffectRepeat(
    Effect.andThen(
      Effect.suspend(() => this.news.await),
      Effect.sync(() => this.take())
    )
  )

  private take(): ReadonlyArray<string> | "resync" {
    this.news.closeUnsafe()
    const { resync, told } = this
    this.told = new Set()
    this.resync = false
    return resync ? "resync" : [...told]
  }
}
