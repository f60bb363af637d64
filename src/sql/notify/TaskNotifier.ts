import { Effect, type Stream } from "effect"
import type { StoreError } from "../Database.ts"

/** What a subscription is for: every change of a task, or its end. */
export type SubscribeUntil = "change" | "end"

/** A change on the way of a task, or one that may be its end. */
export type ChangeKind = "step" | "end"

/** Notifies waiters that tasks changed. How it reaches other processes depends on the database. */
export interface TaskNotifier {
  /** Records changes for other processes, where they read them from a table. Needs the transaction of the changes. */
  readonly recordChanges: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** Records changes even if no other process has a subscription. */
  readonly recordChangesForAll: (ids: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** Notifies the subscribers of tasks, after the commit. */
  readonly notify: (ids: ReadonlyArray<string>, kind: ChangeKind) => void
  /** Notifies the subscribers of this process only, of records that were created. */
  readonly notifyLocal: (ids: ReadonlyArray<string>) => void
  /** Notifies every process, subscribed or not: the worker that runs a task has no subscription to it. */
  readonly notifyAll: (ids: ReadonlyArray<string>) => void
  /** Subscribes to tasks. A read that begins after it misses no change. */
  readonly subscribe: (ids: ReadonlyArray<string>, until: SubscribeUntil) => Effect.Effect<void, StoreError>
  readonly unsubscribe: (ids: ReadonlyArray<string>) => void
  /** Ids of tasks that may have changed; `resync`: any may have. `undefined`: there are no hints. */
  readonly hints: Stream.Stream<ReadonlyArray<string> | "resync", StoreError> | undefined
  /** Removes what processes that are gone have left. */
  readonly trim: Effect.Effect<void, StoreError>
}

/** Notifies no process: waiters poll. */
export const none: TaskNotifier = {
  recordChanges: () => Effect.void,
  recordChangesForAll: () => Effect.void,
  notify: () => {},
  notifyLocal: () => {},
  notifyAll: () => {},
  subscribe: () => Effect.void,
  unsubscribe: () => {},
  hints: undefined,
  trim: Effect.void
}
