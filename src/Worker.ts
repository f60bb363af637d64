/**
 * Runs tasks: claims what is due, never more than it has slots free, and settles what became of it.
 *
 * ```ts
 * const WorkerLive = Worker.layer([Divide], { concurrency: 32 }).pipe(Layer.provide(DivideLive))
 * ```
 *
 * When its scope closes it claims no more, lets running tasks finish within `drainTimeout`, interrupts the rest and
 * puts them back at once, counting nothing. Under `NodeRuntime.runMain` that is what SIGTERM does.
 */
import type { Duration } from "effect"
import { Array as Arr, Context, Effect, Layer } from "effect"
import { Backend } from "./Backend.ts"
import type { WorkerInfo } from "./BackendDriver.ts"
import { Broker } from "./Broker.ts"
import * as defaults from "./internal/defaults.ts"
import { nonNegativeDuration, positiveDuration, text, wholeNumber } from "./internal/options.ts"
import { definitionOf, type HandledTask, handlerKey } from "./internal/task/TaskDefinition.ts"
import { startWorker, type WorkerService } from "./internal/worker/claimLoop.ts"
import type { BackendError, BackendNotConfigured } from "./StoreError.ts"
import type * as Task from "./Task.ts"

export type { WorkerInfo } from "./BackendDriver.ts"
export type { Stats, WorkerService } from "./internal/worker/claimLoop.ts"

/** Options of a worker. */
export interface Options {
  /** Default: the queues of its tasks. */
  readonly queues?: ReadonlyArray<string> | undefined
  /** Tasks that run at once. Default 16. As many messages, at most 256, are claimed together, with their payloads. */
  readonly concurrency?: number | undefined
  /**
   * How long a run is held without a sign of life, apart from a task's timeout; renewed at a third of it. A worker
   * that vanished is replaced after that time. Default: what the broker's layer says, 30 seconds unless told otherwise.
   */
  readonly lease?: Duration.Input | undefined
  /** How long running tasks may take to finish when the worker stops. Default 20 seconds; 0 for tests. */
  readonly drainTimeout?: Duration.Input | undefined
  /** How often the worker says that it is there. Default 10 seconds. */
  readonly heartbeat?: Duration.Input | undefined
  /**
   * How long a message is put back whose task this worker does not know (a rolling deploy), counted from its due
   * time, or with RabbitMQ from when it was first put back so; then the task ends as `UnknownTask`. Default 5 minutes.
   */
  readonly unknownTaskGrace?: Duration.Input | undefined
}

/** A worker that runs. */
export class Worker extends Context.Service<Worker, WorkerService>()("chicory/Worker") {}

const known = (
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
 * A worker for these tasks; asks for a handler of each. Where the compiler sees no names (`Array<Task.Any>`), a
 * missing handler is a defect when the layer is built, as are options out of range.
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
      return Effect.contextWith((context: Context.Context<Broker | Backend>) =>
        startWorker({
          backend: Context.get(context, Backend),
          broker: Context.get(context, Broker),
          tasks: known(tasks, context),
          queues: Arr.isReadonlyArrayNonEmpty(queues)
            ? Arr.map(queues, (queue) => text(at("queues"), queue))
            : [defaults.queue],
          concurrency: wholeNumber(at("concurrency"), options.concurrency ?? defaults.concurrency, 1),
          lease: positiveDuration(at("lease"), options.lease ?? Context.get(context, Broker).lease),
          drainTimeout: nonNegativeDuration(
            at("drainTimeout"),
            options.drainTimeout ?? defaults.drainTimeout
          ),
          heartbeat: positiveDuration(at("heartbeat"), options.heartbeat ?? defaults.heartbeat),
          unknownTaskGrace: nonNegativeDuration(
            at("unknownTaskGrace"),
            options.unknownTaskGrace ?? defaults.unknownTaskGrace
          )
        })
      )
    })
  )

/** The workers that are alive, by their heartbeats. */
export const active: Effect.Effect<
  ReadonlyArray<WorkerInfo>,
  BackendError | BackendNotConfigured,
  Backend
> = Backend.use((backend) => backend.workers)
