/**
 * The backend driver over this process's memory: task records, dead letters, documents and the registry of workers.
 *
 * An operation runs in one step of its fiber, which makes it atomic. Every time is that of the caller's `Clock`. While
 * its hints are followed, the store sweeps itself when something is due.
 */
import { Effect, Stream } from "effect"
import type { BackendDriver, Swept } from "../BackendDriver.ts"
import { MemoryDeadLetters } from "./MemoryDeadLetters.ts"
import { MemoryDocuments } from "./MemoryDocuments.ts"
import { MemoryHints } from "./MemoryHints.ts"
import { MemorySweeper } from "./MemorySweeper.ts"
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

/** Tasks, dead letters and workers that become due at the same time, at most of each, before other work has its turn. */
const SWEEP_LIMIT = 10_000

/** Makes the driver over an empty store. `onEnded` is called with the id of a task that ends without a run. */
export const makeBackend = (onEnded: (id: string) => void): BackendDriver<never> => {
  const hints = new MemoryHints()
  const sweeper = new MemorySweeper((now) => {
    sweep(SWEEP_LIMIT, now)
    return Math.min(tasks.nextDueAt, deadLetters.nextDueAt, workers.nextDueAt)
  })
  const onDue = (at: number): void => sweeper.sweepBy(at)
  const deadLetters = new MemoryDeadLetters(onDue)
  const tasks = new MemoryTasks({ deadLetters, hints, onDue, onEnded })
  const workers = new MemoryWorkers(onDue)
  const documents = new MemoryDocuments()
  const sweep = (limit: number, now: number): Swept => {
    const { handled, lost } = tasks.sweep(limit, now)
    return { handled: handled + deadLetters.sweep(limit, now) + workers.sweep(limit, now), lost }
  }

  return {
    name: "memory",
    capabilities: { hints: true, reliableHints: true },
    create: forEach((record, now) => tasks.create(record, now)),
    markPublished: forEach((record, now) => tasks.markPublished(record, now)),
    start: forEach((request, now) => tasks.start(request, now)),
    renew: forEach((renewal, now) => tasks.renew(renewal, now)),
    settle: forEach((settlement, now) => tasks.settle(settlement, now)),
    parkMessage: forEachDiscard((message, now) => deadLetters.park(message, now)),
    read: forEach((id, now) => tasks.read(id, now)),
    readHistory: forEach((id, now) => tasks.readHistory(id, now)),
    subscribe: forEach((id, now) => {
      hints.subscribe(id)
      return tasks.read(id, now)
    }),
    unsubscribe: forEachDiscard((id) => hints.unsubscribe(id)),
    hints: Stream.unwrap(Effect.as(sweeper.run, hints.stream)),
    cancel: forEach((id, now) => tasks.cancel(id, now)),
    withdraw: forEachDiscard((message, now) => tasks.withdraw(message, now)),
    forget: forEachDiscard((id, now) => tasks.forget(id, now)),
    reopen: (ids, reservedMillis) => forEach((id: string, now) => tasks.reopen(id, reservedMillis, now))(ids),
    getDeadLetters: forEach((id, now) => deadLetters.get(id, now)?.letter),
    listDeadLetters: (query) => withNow((now) => deadLetters.list(query, now)),
    listDeadLetterIds: (query) => withNow((now) => deadLetters.list(query, now)),
    countDeadLetters: (task) => withNow((now) => deadLetters.count(task, now)),
    removeDeadLetters: forEach((id, now) => deadLetters.remove(id, now)),
    heartbeat: (worker, ttlMillis) => withNow((now) => workers.heartbeat(worker, ttlMillis, now)),
    unregisterWorker: (id) => Effect.sync(() => workers.unregister(id)),
    workers: withNow((now) => workers.list(now)),
    documents: {
      get: forEach((key) => documents.get(key)),
      write: forEach((write) => documents.write(write)),
      list: (query) => Effect.sync(() => documents.list(query))
    },
    sweep: (limit) => withNow((now) => sweep(limit, now))
  }
}

/** Makes the driver of a store that has no messages. */
export const makeMemoryBackend: Effect.Effect<BackendDriver<never>> = Effect.sync(() => makeBackend(() => {}))
