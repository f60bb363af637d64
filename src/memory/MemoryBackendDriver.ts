/**
 * The backend driver over this process's memory: task records, dead letters and the registry of workers.
 *
 * An operation runs in one step of its fiber, which makes it atomic. Every time is that of the caller's `Clock`.
 */
import { Effect } from "effect"
import type { BackendDriver } from "../BackendDriver.ts"
import { MemoryDeadLetters } from "./MemoryDeadLetters.ts"
import { MemoryHints } from "./MemoryHints.ts"
import { MemoryTasks } from "./MemoryTasks.ts"
import { MemoryWorkers } from "./MemoryWorkers.ts"
import { withNow } from "./withNow.ts"

const forEach =
  <In, Out>(f: (item: In, now: number) => Out) =>
  (items: ReadonlyArray<In>): Effect.Effect<ReadonlyArray<Out>> =>
    withNow((now) => items.map((item) => f(item, now)))

const forEachDiscard =
  <In>(f: (item: In, now: number) => void) =>
  (items: ReadonlyArray<In>): Effect.Effect<void> =>
    withNow((now) => {
      for (const item of items) f(item, now)
    })

/** Makes the driver over an empty store. */
export const makeMemoryBackend: Effect.Effect<BackendDriver<never>> = Effect.sync(() => {
  const deadLetters = new MemoryDeadLetters()
  const hints = new MemoryHints()
  const tasks = new MemoryTasks(deadLetters, hints)
  const workers = new MemoryWorkers()

  return {
    name: "memory",
    capabilities: { hints: true },
    create: forEach((record, now) => tasks.create(record, now)),
    markPublished: forEachDiscard((id, now) => tasks.markPublished(id, now)),
    start: forEach((request, now) => tasks.start(request, now)),
    renew: forEach((renewal, now) => tasks.renew(renewal, now)),
    settle: forEach((settlement, now) => tasks.settle(settlement, now)),
    parkMessage: forEachDiscard((message, now) => deadLetters.park(message, now)),
    read: forEach((id, now) => tasks.read(id, now)),
    subscribe: forEach((id, now) => {
      hints.subscribe(id)
      return tasks.read(id, now)
    }),
    unsubscribe: forEachDiscard((id) => hints.unsubscribe(id)),
    hints: hints.stream,
    cancel: forEach((id, now) => tasks.cancel(id, now)),
    forget: forEachDiscard((id, now) => tasks.forget(id, now)),
    reopen: forEach((id, now) => tasks.reopen(id, now)),
    getDeadLetters: forEach((id, now) => deadLetters.get(id, now)?.letter),
    listDeadLetters: (query) => withNow((now) => deadLetters.list(query, now)),
    countDeadLetters: (task) => withNow((now) => deadLetters.count(task, now)),
    removeDeadLetters: forEach((id, now) => deadLetters.remove(id, now)),
    heartbeat: (worker, ttlMillis) => withNow((now) => workers.heartbeat(worker, ttlMillis, now)),
    unregisterWorker: (id) => Effect.sync(() => workers.unregister(id)),
    workers: withNow((now) => workers.list(now)),
    sweep: (limit) =>
      withNow((now) => tasks.sweep(limit, now) + deadLetters.sweep(limit, now) + workers.sweep(limit, now))
  }
})
