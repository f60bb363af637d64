/** A scenario under a fault: two workers, a producer, and an observer that the fault does not strike. */
import { assert } from "@effect/vitest"
import type { AsyncResult } from "chicory"
import { Array as Arr, Cause, type Duration, Effect, Exit, Option, type Scope } from "effect"
import type { TaskRecord } from "../../src/BackendDriver.ts"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as Audit from "./audit.ts"
import { type InProcessWorker, overlappingRuns, startInProcessWorker } from "./inProcessWorkers.ts"
import { type Payload, payload, payloads } from "./job.ts"
import type { StoreInstance } from "./ownStores.ts"
import { type Enqueued, makeProducer, type Producer, unresolved } from "./producer.ts"

/** Leases that outlast a fault, and leases that run out during one. */
const LEASE_MILLIS = { outlasts: 20_000, lapses: 5_000 }

/** Bound for work to end once the fault is over, on a busy machine. */
export const BOUND_MILLIS = 60_000

/** How each party reaches the servers: URLs in the servers' order. */
export interface Options {
  readonly instance: StoreInstance
  readonly workers: ReadonlyArray<ReadonlyArray<string>>
  readonly producer: ReadonlyArray<string>
  readonly observer: ReadonlyArray<string>
  readonly callTimeout?: Duration.Input | undefined
  /** Whether leases run out during the fault. */
  readonly lapses?: boolean | undefined
  /** How the producer waits for its tasks. */
  readonly waiting?: AsyncResult.GetOptions | undefined
}

/** Records how many milliseconds something took. */
export type Note = (what: string, millis: number) => void

export interface FaultScenario {
  readonly workers: ReadonlyArray<InProcessWorker>
  readonly producer: Producer
  /** A producer that only faults of the servers themselves affect. */
  readonly observer: Producer
  /** Makes payloads that are unique in the scenario. */
  readonly makePayloads: (count: number, millis: number) => ReadonlyArray<Payload>
  /** Lets the producer enqueue tasks while the effect runs; waits until all of them are accepted. */
  readonly whileEnqueuing: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, unknown, R>
  /** Waits until each worker has begun that many further runs. */
  readonly untilWorking: (runs: number) => Effect.Effect<void>
  /** Waits until the waiters of these tasks are resolved. */
  readonly untilResolved: (tasks: () => ReadonlyArray<Enqueued>) => Effect.Effect<void, unknown>
  /** Waits until every participant has made progress since that time. */
  readonly untilProgress: (since: number, note: Note) => Effect.Effect<void, unknown>
  /** Waits until every waiter is resolved and no message is left. */
  readonly untilIdle: Effect.Effect<void, unknown>
  /** The records of all tasks, by id. */
  readonly records: Effect.Effect<ReadonlyMap<string, TaskRecord | undefined>, unknown>
  /** The tasks that ran twice at the same time. */
  readonly overlappingRuns: () => ReadonlyArray<string>
  /** Audits all tasks, and the waiters that received an outcome. */
  readonly audit: Effect.Effect<Audit.Audit, unknown>
}

/** Whether a waiter failed with `Forgotten`. */
export const isForgotten = ({ outcome }: Enqueued): boolean =>
  outcome !== undefined &&
  Exit.isFailure(outcome) &&
  Option.exists(Cause.findErrorOption(outcome.cause), ({ reason }) => reason._tag === "Forgotten")

/** Starts the scenario, which ends with the scope. */
export const startScenario = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<FaultScenario, unknown, Scope.Scope> {
  const { callTimeout, lapses = false, instance: location, waiting } = options
  const lease = LEASE_MILLIS[lapses ? "lapses" : "outlasts"]
  const open = (urls: ReadonlyArray<string>) => location.open({ urls, callTimeout })
  const drivers = yield* open(options.observer)
  const workers = yield* Effect.forEach(options.workers, (urls) =>
    Effect.flatMap(open(urls), (drivers) =>
      startInProcessWorker(drivers, { lease, concurrency: 4, drainTimeout: 0 })
    )
  )
  const producer = yield* makeProducer(
    yield* Effect.flatMap(open(options.producer), StoreLocations.services),
    waiting
  )
  const observer = yield* makeProducer(yield* StoreLocations.services(drivers), waiting)

  let next = 0
  const make = (count: number, millis: number) => {
    next += count
    return payloads(count, millis, next - count)
  }
  const tasks = () => [...producer.tasks, ...observer.tasks]
  const begun = ({ events }: InProcessWorker) => events().filter(({ _tag }) => _tag === "Began").length

  /** Enqueues short tasks and now and then a long one, with at most 40 unresolved. */
  const enqueueSome = Effect.suspend(() => {
    if (producer.tasks.filter(({ resolvedAt }) => resolvedAt === undefined).length > 40) return Effect.void
    const long = next % 30 < 5 ? [payload(next++, { millis: 1_500 })] : []
    return Effect.asVoid(producer.enqueueAll([...make(5, 60), ...long]))
  })
  const untilResolved = Effect.fnUntraced(function* (tasks: () => ReadonlyArray<Enqueued>) {
    const ids = yield* unresolved(tasks, BOUND_MILLIS)
    const states = yield* Effect.forEach(ids, (id) =>
      Effect.map(drivers.backend.read([id]), ([record]) => `${id}: ${JSON.stringify(record)}`)
    )
    assert.deepStrictEqual(states, [], "every waiter is resolved")
  })
  /**
   * Messages that are not delayed: a delayed one is that of an ended task, delivered twice and released for a lease.
   */
  const left = Effect.map(drivers.broker.counts(["default"]), ([counts]) =>
    counts === undefined ? 0 : counts.ready + counts.claimed
  )
  const records = Effect.gen(function* () {
    const ids = [...new Set(tasks().map(({ id }) => id))]
    const found = yield* Effect.forEach(ids, (id) => drivers.backend.read([id]), { concurrency: 16 })
    return new Map(ids.map((id, i) => [id, found[i]?.[0]]))
  })
  return {
    workers,
    producer,
    observer,
    makePayloads: make,
    whileEnqueuing: (effect) =>
      Effect.suspend(() => {
        let over = false
        const enqueuing = Effect.repeat(Effect.andThen(enqueueSome, Effect.sleep("150 millis")), {
          until: () => over
        })
        const going = Effect.ensuring(
          effect,
          Effect.sync(() => (over = true))
        )
        return Effect.all([going, Effect.asVoid(enqueuing)], { concurrency: 2 })
      }).pipe(Effect.map(([value]) => value)),
    untilWorking: (runs) =>
      Effect.suspend(() => {
        const before = workers.map(begun)
        return eventually(Effect.sync(() => workers.every((worker, i) => begun(worker) >= before[i]! + runs)))
      }),
    untilResolved,
    untilProgress: (since, note) =>
      Effect.gen(function* () {
        const passed = () => performance.now() - since
        const atWork = Effect.forEach(
          workers,
          (worker) =>
            Effect.andThen(
              worker.untilBegunAfter(since),
              Effect.sync(() => note("a worker begins a task", passed()))
            ),
          { concurrency: "unbounded", discard: true }
        )
        // more than one worker can run at once
        const work = Effect.andThen(
          Effect.suspend(() => observer.enqueueAll(make(12, 150))),
          Effect.sleep("500 millis")
        )
        const probing = Effect.gen(function* () {
          const probe = yield* producer.enqueue(payload(next++))
          note("a task is accepted", probe.acceptedAt - since)
          yield* untilResolved(() => [probe])
          note("its waiter is resolved", probe.resolvedAt! - since)
        })
        yield* Effect.all([probing, Effect.raceFirst(atWork, Effect.forever(work))], {
          concurrency: "unbounded",
          discard: true
        })
      }).pipe(Effect.timeout(2 * BOUND_MILLIS)),
    untilIdle: Effect.andThen(
      untilResolved(tasks),
      Effect.timeout(eventually(Effect.map(left, (left) => left === 0)), BOUND_MILLIS)
    ),
    records,
    overlappingRuns: () => overlappingRuns(workers, lease),
    audit: Effect.map(records, (records) => {
      const all = Arr.groupBy(tasks(), ({ id }) => id)
      return Audit.of(
        Object.entries(all).map(([id, own]) => ({
          id,
          payload: own[0].payload,
          outcomes: own
            .filter((task) => task.error === undefined && !isForgotten(task))
            .map(({ outcome }) => outcome),
          record: records.get(id)
        })),
        workers.map(({ events }) => ({ events: events(), halted: false }))
      )
    })
  }
})
