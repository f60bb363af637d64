/**
 * Enqueues prepared tasks: each becomes a record and a message, in an order in which a crash between the two loses
 * nothing that was accepted.
 *
 * - With a key or a given id: the record reserves it (`published: false`), the message is published, the reservation is
 *   marked. A request that finds an unmarked reservation publishes the message again, under the reserved id.
 * - Otherwise: the message first, then the record. A crash between the two leaves a message whose start creates the
 *   record; the other order would leave a record that waits for ever.
 */
import { Effect, Exit, type Fiber } from "effect"
import type { Backend } from "../../Backend.ts"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import type { Broker } from "../../Broker.ts"
import type { Envelope } from "../../BrokerDriver.ts"
import { type EnqueueError, IdempotencyConflict } from "../../EnqueueError.ts"
import { BackendNotConfigured } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import * as Batcher from "../concurrency/Batcher.ts"
import type { FusedService } from "../driver/BackendService.ts"
import { fusionOf } from "../driver/fusion.ts"
import * as metrics from "../metrics.ts"

/** A task to enqueue, with its payload encoded. */
export interface PreparedTask {
  readonly head: TaskMessage.Head
  /** The payload as JSON text. */
  readonly payload: string
  readonly delayMillis: number
  readonly retentionMillis: number | undefined
  /** `undefined` where neither a key nor an id was given. */
  readonly reservation: { readonly key: string | undefined; readonly payloadHash: string } | undefined
}

/** The services that tasks are enqueued in. */
export interface Stores {
  readonly backend: Backend["Service"]
  readonly broker: Broker["Service"]
}

/** The id of the task, which is that of an earlier task where the key or id was taken by the same request. */
export type EnqueueExit = Exit.Exit<string, EnqueueError>

const envelopeOf = ({ delayMillis, head, payload }: PreparedTask, id = head.id): Envelope => ({
  id,
  task: head.task,
  queue: head.queue,
  priority: head.priority,
  delayMillis,
  generation: head.generation,
  expiresMillis: head.expires,
  body: TaskMessage.encode(id === head.id ? head : { ...head, id }, payload)
})

const recordOf = (
  { head, reservation, retentionMillis }: PreparedTask,
  published = reservation === undefined
): NewRecord => ({
  id: head.id,
  task: head.task,
  key: reservation?.key,
  payloadHash: reservation?.payloadHash ?? "",
  expiresMillis: head.expires,
  retentionMillis,
  published
})

/** Returns the id that the task has now, or fails if the key or id is taken by another request. */
const idOrConflict = (
  { head, reservation }: PreparedTask,
  created: Created
): Effect.Effect<string, IdempotencyConflict> => {
  if (created._tag === "Created") return Effect.succeed(head.id)
  return created.same
    ? Effect.succeed(created.id)
    : Effect.fail(
        new IdempotencyConflict({ taskId: created.id, taskName: head.task, key: reservation?.key ?? head.id })
      )
}

const mustPublish = (created: Created): boolean => created._tag === "Created" || !created.published

/** Publishes the message of a reserved task, unless it is published, and marks the reservation. */
const publishReserved = (
  { backend, broker }: Stores,
  task: PreparedTask,
  created: Created
): Effect.Effect<string, EnqueueError> =>
  Effect.flatMap(idOrConflict(task, created), (id) =>
    mustPublish(created)
      ? broker.publish
          .one(envelopeOf(task, id))
          .pipe(Effect.andThen(backend.markPublished.one(id)), Effect.as(id))
      : Effect.succeed(id)
  )

const fusedTask = (task: PreparedTask) => ({
  record: recordOf(task, true),
  message: envelopeOf(task)
})
const afterFused = (
  stores: Stores,
  task: PreparedTask,
  created: Created
): Effect.Effect<string, EnqueueError> =>
  created._tag === "Created" ? Effect.succeed(task.head.id) : publishReserved(stores, task, created)
/** Enqueues record and message in one step. A reservation that two steps left unpublished is published here. */
const enqueueFused = (
  fusion: FusedService,
  stores: Stores,
  task: PreparedTask
): Effect.Effect<string, EnqueueError> =>
  Effect.flatMap(fusion.enqueue.one(fusedTask(task)), (created) => afterFused(stores, task, created))

/** Publishes the message, then creates the record. */
const publishThenCreate = (
  { backend: { configured, create }, broker: { publish } }: Stores,
  task: PreparedTask
): Effect.Effect<string, EnqueueError> => {
  const message = envelopeOf(task)
  const both = configured
    ? Batcher.toEffect(Batcher.andThen(publish.request(message), create.request(recordOf(task))))
    : publish.one(message)
  return Effect.as(both, task.head.id)
}

/** Reserves the record, publishes the message, and marks the reservation. */
const reserveThenPublish = (
  { backend, broker }: Stores,
  task: PreparedTask
): Effect.Effect<string, EnqueueError> =>
  backend.configured
    ? Effect.flatMap(backend.create.one(recordOf(task)), (created) =>
        publishReserved({ backend, broker }, task, created)
      )
    : Effect.fail(
        new BackendNotConfigured({
          taskId: task.head.id,
          operation:
            task.reservation?.key === undefined
              ? "an enqueue with a given id"
              : "an enqueue with an idempotency key"
        })
      )

const countSent = (
  fiber: Fiber.Fiber<unknown, unknown>,
  { broker }: Stores,
  { head }: PreparedTask,
  count: number
): void => metrics.forQueue(broker.name, head.queue).sent.updateUnsafe(count, fiber.context)

const enqueueOne = (stores: Stores, task: PreparedTask): Effect.Effect<string, EnqueueError> => {
  const fusion = fusionOf(stores)
  if (fusion !== undefined) return enqueueFused(fusion, stores, task)
  return task.reservation === undefined ? publishThenCreate(stores, task) : reserveThenPublish(stores, task)
}

/** Enqueues a task and returns its id. */
export const enqueue = (
  fiber: Fiber.Fiber<unknown, unknown>,
  stores: Stores,
  task: PreparedTask
): Effect.Effect<string, EnqueueError> =>
  Effect.map(enqueueOne(stores, task), (id) => {
    countSent(fiber, stores, task, 1)
    return id
  })

/** Enqueues tasks of one definition in bulk. Each has its own exit, in order. */
export const enqueueAll = (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>
): Effect.Effect<ReadonlyArray<EnqueueExit>> =>
  Effect.withFiber((fiber) => {
    const [first] = tasks
    if (first === undefined) return Effect.succeed([])
    const fusion = fusionOf(stores)
    const all =
      fusion !== undefined
        ? enqueueAllFused(fusion, stores, tasks)
        : first.reservation === undefined
          ? publishThenCreateAll(stores, tasks)
          : Effect.forEach(tasks, (task) => Effect.exit(reserveThenPublish(stores, task)), {
              concurrency: "unbounded"
            })
    return Effect.map(all, (answers) => {
      countSent(fiber, stores, first, answers.filter(Exit.isSuccess).length)
      return answers
    })
  })

const enqueueAllFused = (fusion: FusedService, stores: Stores, tasks: ReadonlyArray<PreparedTask>) =>
  Effect.flatMap(fusion.enqueue.many(tasks.map(fusedTask)), (created) =>
    Effect.forEach(tasks, (task, i): Effect.Effect<EnqueueExit> => {
      const exit = created[i]!
      return Exit.isSuccess(exit)
        ? Effect.exit(afterFused(stores, task, exit.value))
        : Effect.succeed(Exit.map(exit, () => task.head.id))
    })
  )

/** Publishes all messages, then creates the records of those that were published. */
const publishThenCreateAll = Effect.fnUntraced(function* (
  { backend, broker }: Stores,
  tasks: ReadonlyArray<PreparedTask>
) {
  const published = yield* broker.publish.many(tasks.map((task) => envelopeOf(task)))
  const accepted = tasks.filter((_, i) => Exit.isSuccess(published[i]!))
  const created = backend.configured ? yield* backend.create.many(accepted.map((task) => recordOf(task))) : []
  let next = 0
  return tasks.map(({ head }, i): EnqueueExit => {
    const last: Exit.Exit<unknown, EnqueueError> = Exit.isSuccess(published[i]!)
      ? (created[next++] ?? published[i])
      : published[i]!
    return Exit.map(last, () => head.id)
  })
})
