/**
 * Runs tasks: claims due messages, at most as many as it has free slots, runs their handlers, and stores the outcomes.
 *
 * **Example** (Running a worker process)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Task, Worker } from "chicory"
 * import { SqliteStore } from "chicory/sqlite"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const Square = Task.make("math.square", {
 *   payload: { n: Schema.Number },
 *   success: Schema.Number
 * })
 *
 * const SquareLive = Square.toLayer(({ n }) => Effect.succeed(n * n))
 *
 * const WorkerLive = Worker.layer([Square], { concurrency: 32 }).pipe(
 *   Layer.provide(SquareLive),
 *   Layer.provide(SqliteStore.layer({ filename: "tasks.db" }))
 * )
 *
 * export const main = () => NodeRuntime.runMain(Layer.launch(WorkerLive))
 * ```
 *
 * **Details**
 *
 * When its scope closes, a worker claims no more, lets running tasks finish within `drainTimeout`, interrupts the rest,
 * and releases them at once, with nothing counted. Under `NodeRuntime.runMain`, SIGTERM and SIGINT do this.
 *
 * A run that only waits for other tasks, and may run again, is put back sooner: once nothing else has run in the worker
 * for a second, and 5 seconds after the drain began at the latest. What it waits for is left alone.
 *
 * It has ended at most 6 seconds after the drain. A handler that cannot be interrupted, and a call that the store does not
 * answer, are left behind after 4 of them: a warning names the task, which starts again when its lease is over, and
 * counts a crash then. With the default `drainTimeout` of 20 seconds this fits into the 30 seconds that Kubernetes gives
 * a process to end.
 *
 * **Gotchas**
 *
 * `effect/workers` exports another `Worker`, for threads. To use both, rename one:
 *
 * ```ts
 * import { Worker } from "chicory"
 * import { Worker as WorkerThread } from "effect/workers"
 * ```
 *
 * @since 0.1.0
 * @module
 */
import type { DateTime, Duration } from "effect"
import { Array as Arr, Context, Effect, Layer } from "effect"
import { Backend } from "./Backend.ts"
import type { Heartbeat } from "./BackendDriver.ts"
import { Broker } from "./Broker.ts"
import { toDate } from "./internal/dates.ts"
import { DefaultDrainTimeout } from "./internal/defaultDrainTimeout.ts"
import * as defaults from "./internal/defaults.ts"
import { checkSupport } from "./internal/driver/checkSupport.ts"
import { nonNegativeDuration, positiveDuration, text, wholeNumber } from "./internal/options.ts"
import { definitionOf, type HandledTask, handlerKey } from "./internal/task/TaskDefinition.ts"
import { startWorker, type WorkerService } from "./internal/worker/startWorker.ts"
import type { BackendError, BackendNotConfigured } from "./StoreError.ts"
import type * as Task from "./Task.ts"

export type { Health, HealthCode } from "./internal/worker/health.ts"
export type { WorkerEvent } from "./internal/worker/WorkerEvents.ts"
export type { Stats, WorkerService } from "./internal/worker/startWorker.ts"

/**
 * Options of a worker.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The queues to claim from. Default: the queues of its tasks. */
  readonly queues?: ReadonlyArray<string> | undefined
  /**
   * How many tasks run at once. Default 16. One claim takes as many messages with their payloads, and at most 256.
   * Handlers that wait for other tasks are not counted meanwhile: see `AsyncResult.get`.
   */
  readonly concurrency?: number | undefined
  /**
   * How long claims and runs are leased. A worker renews its leases after a third of it; another worker takes over the
   * tasks of one that vanished after all of it. It does not bound how long a task runs: see the task's `timeout`.
   * Default: the `lease` of the broker's layer, by default 30 seconds.
   */
  readonly lease?: Duration.Input | undefined
  /**
   * How long running tasks may take to finish when the worker stops. Default 20 seconds, and 0 with `Testing.layer`. Tasks
   * that only wait for others are put back after 5 seconds at the latest, unless they are at-most-once. The end of the
   * worker may take 6 seconds more. Use 0 under `TestClock`, where nothing would end the wait.
   */
  readonly drainTimeout?: Duration.Input | undefined
  /**
   * How often the worker sends its heartbeat; `active` lists it for three times as long. On the memory store an idle
   * worker sends none, and is listed until it stops. Default 10 seconds.
   */
  readonly heartbeat?: Duration.Input | undefined
  /**
   * How long a message of a task that this worker does not know waits for other workers, as in a rolling deploy. After that
   * the task ends with the reason `UnknownTask`, unless a live worker of its queue lists the task (see `active`). Counted
   * from the message's due time, or with RabbitMQ from when a worker first put it back. Default 1 hour.
   *
   * While the list of workers cannot be read, nothing ends. Without a backend there is no list, and the grace decides.
   */
  readonly unknownTaskGrace?: Duration.Input | undefined
}

/**
 * Service of a running worker: its id, what it has done, and whether it works.
 *
 * @see {@link layer} for the layer that runs it
 *
 * @category services
 * @since 0.1.0
 */
export class Worker extends Context.Service<Worker, WorkerService>()("chicory/Worker") {}

/**
 * The workers that were started under a layer that collects them; `undefined` elsewhere.
 *
 * @internal
 */
export const StartedWorkers = Context.Reference<((worker: WorkerService) => void) | undefined>(
  "chicory/StartedWorkers",
  {
    defaultValue: () => undefined
  }
)

const handledTasks = (
  tasks: ReadonlyArray<Task.Any>,
  context: Context.Context<never>
): ReadonlyMap<string, HandledTask> => {
  const map = new Map<string, HandledTask>()
  for (const task of tasks) {
    const definition = definitionOf(task)
    if (map.has(task.name)) throw new RangeError(`Worker.layer: two tasks are named "${task.name}"`)
    const handler = Context.getOrUndefined(context, handlerKey(task.name))
    if (handler === undefined) {
      throw new RangeError(
        `Worker.layer: there is no handler for "${task.name}": provide the layer of task.toLayer`
      )
    }
    map.set(task.name, { definition, handler })
  }
  return map
}

/**
 * Runs a worker for these tasks, for as long as the layer's scope is open.
 *
 * **Details**
 *
 * The layer needs the handler of each task, from `task.toLayer`. Where the compiler sees no names, as in an
 * `Array<Task.Any>`, a missing handler is a defect when the layer is built. So are two tasks of one name, options out of
 * range, and a task that asks for what the stores lack, such as a `priority` with RabbitMQ: the defect names the task
 * and the broker. `Task.layerCheck` does the same for a program that only enqueues.
 *
 * When the layer is built, the worker claims, and `active` lists it. Where the store does not answer, the layer is built
 * after 5 seconds all the same, and where the store fails, at once; a later heartbeat lists the worker then.
 *
 * A store that fails is called again with growing delays; nothing that it returns ends the worker.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const Tasks extends ReadonlyArray<Task.Any>>(
  tasks: Tasks,
  options: Options = {}
): Layer.Layer<Worker, never, Broker | Backend | Task.HandlerOf<Tasks[number]>> =>
  Layer.effect(
    Worker,
    Effect.suspend(() => {
      const at = (option: string) => `Worker.layer: ${option}`
      const queues = options.queues ?? [...new Set(tasks.map((task) => task.queue))]
      return Effect.contextWith((context: Context.Context<Broker | Backend>) => {
        const stores = { backend: Context.get(context, Backend), broker: Context.get(context, Broker) }
        checkSupport("Worker.layer", tasks.map(definitionOf), stores)
        const starting = startWorker({
          ...stores,
          tasks: handledTasks(tasks, context),
          queues: Arr.isReadonlyArrayNonEmpty(queues)
            ? Arr.map(queues, (queue) => text(at("queues"), queue))
            : [defaults.queue],
          concurrency: wholeNumber(at("concurrency"), options.concurrency ?? defaults.concurrency, 1),
          lease: positiveDuration(at("lease"), options.lease ?? stores.broker.lease),
          drainTimeout: nonNegativeDuration(
            at("drainTimeout"),
            options.drainTimeout ?? Context.get(context, DefaultDrainTimeout)
          ),
          heartbeat: positiveDuration(at("heartbeat"), options.heartbeat ?? defaults.heartbeat),
          unknownTaskGrace: nonNegativeDuration(
            at("unknownTaskGrace"),
            options.unknownTaskGrace ?? defaults.unknownTaskGrace
          )
        })
        return Effect.tap(starting, (worker) =>
          Effect.sync(() => Context.get(context, StartedWorkers)?.(worker))
        )
      })
    })
  )

/**
 * A worker, as its last heartbeat described it.
 *
 * @see {@link active}
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerInfo extends Heartbeat {
  /** When the worker registered, by the store's clock. */
  readonly startedAt: DateTime.Utc
  /** When its last heartbeat came, by the store's clock. */
  readonly seenAt: DateTime.Utc
}

/**
 * Reads the workers whose heartbeats are recent: at most three of their heartbeat intervals old. A worker is among them as
 * soon as its layer is built, unless the store did not answer then, and no more once it has stopped.
 *
 * @category getters
 * @since 0.1.0
 */
export const active: Effect.Effect<
  ReadonlyArray<WorkerInfo>,
  BackendError | BackendNotConfigured,
  Backend
> = Backend.use(({ workers }) =>
  Effect.map(workers, (found) =>
    found.map((worker) => ({
      ...worker,
      startedAt: toDate(worker.startedAt),
      seenAt: toDate(worker.seenAt)
    }))
  )
)
