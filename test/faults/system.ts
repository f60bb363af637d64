/** A running system: a producer, its waiters and workers, and an audit of every accepted task. */
import { AsyncResult, Broker } from "chicory"
import { Array as Arr, type Duration, Effect, Fiber, Option } from "effect"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as Audit from "./audit.ts"
import type { FaultyWorker, Deployment } from "./deployments.ts"
import { Job, type Outcome, type Payload } from "./job.ts"
import { unfused } from "./killPoints.ts"
import type { Options } from "./workerProcess.ts"

/** Bounds every wait. */
const TIMEOUT: Duration.Input = "60 seconds"

interface Task {
  readonly id: string
  readonly payload: Payload
  readonly waiters: ReadonlyArray<Fiber.Fiber<Option.Option<Outcome>, unknown>>
}

/** Options that all workers and the producer share. */
export type Shape = Pick<Options, "unfused">

/** Starts a system without workers. */
export const make = Effect.fnUntraced(function* <W extends FaultyWorker>(
  deployment: Deployment<W>,
  shape: Shape = {}
) {
  const drivers = shape.unfused === true ? unfused(deployment.drivers) : deployment.drivers
  const services = yield* StoreLocations.services(drivers)
  const tasks: Array<Task> = []
  const workers: Array<{ readonly worker: W; halted: boolean }> = []

  /** Starts two waiters for a task, each with its own handle. */
  const accept = Effect.fnUntraced(function* (id: string, payload: Payload) {
    const waiters = yield* Effect.forEach([Job.result(id), Job.result(id)], (handle) =>
      Effect.forkScoped(Effect.timeoutOption(AsyncResult.exit(handle), TIMEOUT))
    )
    tasks.push({ id, payload, waiters })
  }, Effect.provideContext(services))

  /** Waits for every accepted task and audits them. */
  const audit: Effect.Effect<Audit.Audit, unknown> = Effect.gen(function* () {
    const outcomes = yield* Effect.forEach(tasks, ({ waiters }) =>
      Effect.map(Fiber.joinAll(waiters), Arr.map(Option.getOrUndefined))
    )
    const records = yield* Effect.forEach(Arr.chunksOf(tasks, 500), (some) =>
      drivers.backend.read(Arr.map(some, ({ id }) => id))
    )
    const all = records.flat()
    return Audit.of(
      tasks.map(({ id, payload }, i) => ({ id, payload, outcomes: outcomes[i]!, record: all[i] })),
      workers.map(({ halted, worker: { events } }) => ({ events, halted }))
    )
  })

  return {
    services,
    /** Enqueues tasks and starts their waiters. */
    enqueue: (payloads: ReadonlyArray<Payload>) =>
      Job.delayAll(payloads).pipe(
        Effect.provideContext(services),
        Effect.tap((handles) =>
          Effect.forEach(handles, ({ taskId }, i) => accept(taskId, payloads[i]!), { discard: true })
        )
      ),
    /** Adds a task of another producer and starts its waiters. */
    accept,
    startWorker: (options: Options) =>
      Effect.tap(deployment.startWorker({ ...shape, ...options }), (worker) =>
        Effect.sync(() => workers.push({ worker, halted: options.killPlan !== undefined }))
      ),
    /** Marks a worker as killed or frozen. */
    halted: (worker: W): void => {
      for (const one of workers) if (one.worker === worker) one.halted = true
    },
    audit,
    /** Waits until no message is left. */
    drained: eventually(
      Effect.map(
        Effect.provideContext(Broker.counts(["default"]), services),
        ([counts]) => counts !== undefined && counts.ready + counts.delayed + counts.claimed === 0
      )
    ).pipe(Effect.timeout(TIMEOUT))
  }
})

export type System<W extends FaultyWorker> = Effect.Success<ReturnType<typeof make<W>>>
