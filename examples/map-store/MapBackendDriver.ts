/**
 * A backend that keeps tasks in a `Map`: the smallest driver that passes the conformance suite.
 *
 * JavaScript runs a function to its end, so each operation here is one atomic step. A store elsewhere uses a
 * transaction, a script or a compare-and-set instead. Every time is that of `Clock`, which stands for the store's clock.
 */
import type { BackendDriver } from "chicory/driver"
import { Clock, Effect } from "effect"
import { fitting } from "./fitting.ts"
import { MapTasks } from "./MapTasks.ts"

const at = <A>(f: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, f)

/** Applies an operation to the items of a batch one after the other: one answer an item, in order. */
const each =
  <In, Out>(f: (item: In, now: number) => Out) =>
  (items: ReadonlyArray<In>): Effect.Effect<ReadonlyArray<Out>> =>
    at((now) => items.map((item) => f(item, now)))

const eachVoid =
  <In>(f: (item: In, now: number) => void) =>
  (items: ReadonlyArray<In>): Effect.Effect<void> =>
    at((now) => items.forEach((item) => f(item, now)))

/** Makes the driver, over an empty store. */
export const makeMapBackend: Effect.Effect<BackendDriver<never>> = Effect.sync(() => {
  const tasks = new MapTasks()
  const read = (ids: ReadonlyArray<string>) =>
    at((now) =>
      fitting(
        ids.map((id) => tasks.read(id, now)),
        (record) => (record?.exit?.length ?? 0) + (record?.progress?.length ?? 0)
      )
    )
  return {
    name: "map",
    capabilities: { hints: false },
    create: each((record, now) => tasks.create(record, now)),
    markPublished: each((record, now) => tasks.markPublished(record, now)),
    start: each((request, now) => tasks.start(request, now)),
    renew: each((renewal, now) => tasks.renew(renewal, now)),
    settle: each((settlement, now) => tasks.settle(settlement, now)),
    parkMessage: eachVoid((message, now) => tasks.park(message, now)),
    read,
    readHistory: each((id, now) => tasks.readHistory(id, now)),
    // without hints a subscription is a read
    subscribe: read,
    unsubscribe: () => Effect.void,
    cancel: each((id, now) => tasks.cancel(id, now)),
    withdraw: eachVoid((message, now) => tasks.withdraw(message, now)),
    forget: eachVoid((id, now) => tasks.forget(id, now)),
    reopen: (ids, reservedMillis) => each((id: string, now) => tasks.reopen(id, reservedMillis, now))(ids),
    getDeadLetters: each((id, now) => tasks.getDeadLetter(id, now)),
    listDeadLetters: (query) =>
      at((now) => fitting(tasks.page(query, now), ({ body, exit }) => body.length + (exit?.length ?? 0))),
    listDeadLetterIds: (query) => at((now) => tasks.page(query, now)),
    countDeadLetters: (task) => at((now) => tasks.count(task, now)),
    removeDeadLetters: each((id, now) => tasks.removeDeadLetter(id, now)),
    heartbeat: (worker, ttlMillis) => at((now) => tasks.heartbeat(worker, ttlMillis, now)),
    unregisterWorker: (worker) => Effect.sync(() => tasks.unregister(worker)),
    workers: at((now) => tasks.workers(now)),
    sweep: (limit) => at((now) => tasks.sweep(limit, now))
  }
})
