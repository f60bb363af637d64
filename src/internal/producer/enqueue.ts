/**
 * How a task becomes a record and a message, so that a crash between the two loses nothing that was accepted.
 *
 * - With a key or an id of the caller's: the record reserves it (`published: false`), the message is sent, the
 *   reservation is marked. Whoever hits a reservation that is not marked sends the message again, under its id.
 * - Without: the message first, then the record. A crash between leaves a message whose run creates the record; the
 *   other order would leave a record that waits for ever.
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

/** A task to enqueue. */
export interface PreparedTask {
  readonly head: TaskMessage.Head
  /** The text of the payload. */
  readonly payload: string
  readonly delayMillis: number
  readonly retentionMillis: number | undefined
  /** `undefined` where neither a key nor an id was given: nothing to hold the task to. */
  readonly reservation: { readonly key: string | undefined; readonly payloadHash: string } | undefined
}

/** Where tasks go. */
export interface Stores {
  readonly backend: Backend["Service"]
  readonly broker: Broker["Service"]
}

/** What became of an item: the id of its task, which is another's where the key was taken. */
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

/** The id under which a task goes, unless it is taken. */
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

/** What follows a record: its message, unless it was sent, then the mark. */
const publishReserved = (
  { backend, broker }: Stores,
  item: PreparedTask,
  created: Created
): Effect.Effect<string, EnqueueError> =>
  Effect.flatMap(idOrConflict(item, created), (id) =>
    mustPublish(created)
      ? broker.publish
          .one(envelopeOf(item, id))
          .pipe(Effect.andThen(backend.markPublished.one(id)), Effect.as(id))
      : Effect.succeed(id)
  )

/** Record and message in one step. Only what the two steps left behind is still to be sent. */
const fusedItem = (item: PreparedTask) => ({
  record: recordOf(item, true),
  message: envelopeOf(item)
})
const afterFused = (
  stores: Stores,
  item: PreparedTask,
  created: Created
): Effect.Effect<string, EnqueueError> =>
  created._tag === "Created" ? Effect.succeed(item.head.id) : publishReserved(stores, item, created)
const enqueueFused = (
  fusion: FusedService,
  stores: Stores,
  item: PreparedTask
): Effect.Effect<string, EnqueueError> =>
  Effect.flatMap(fusion.enqueue.one(fusedItem(item)), (created) => afterFused(stores, item, created))

/** Message, then record. */
const publishThenCreate = (
  { backend: { configured, create }, broker: { publish } }: Stores,
  item: PreparedTask
): Effect.Effect<string, EnqueueError> => {
  const message = envelopeOf(item)
  const both = configured
    ? Batcher.toEffect(Batcher.andThen(publish.request(message), create.request(recordOf(item))))
    : publish.one(message)
  return Effect.as(both, item.head.id)
}

/** Reservation, message, mark. */
const reserveThenPublish = (
  { backend, broker }: Stores,
  item: PreparedTask
): Effect.Effect<string, EnqueueError> =>
  backend.configured
    ? Effect.flatMap(backend.create.one(recordOf(item)), (created) =>
        publishReserved({ backend, broker }, item, created)
      )
    : Effect.fail(
        new BackendNotConfigured({
          taskId: item.head.id,
          operation: item.reservation?.key === undefined ? "an id of one's own" : "an idempotency key"
        })
      )

const countSent = (
  fiber: Fiber.Fiber<unknown, unknown>,
  { broker }: Stores,
  { head }: PreparedTask,
  count: number
): void => metrics.forQueue(broker.name, head.queue).sent.updateUnsafe(count, fiber.context)

const enqueueOne = (stores: Stores, item: PreparedTask): Effect.Effect<string, EnqueueError> => {
  const fusion = fusionOf(stores)
  if (fusion !== undefined) return enqueueFused(fusion, stores, item)
  return item.reservation === undefined ? publishThenCreate(stores, item) : reserveThenPublish(stores, item)
}

/** Enqueues a task, and gives the id under which it goes. */
export const enqueue = (
  fiber: Fiber.Fiber<unknown, unknown>,
  stores: Stores,
  item: PreparedTask
): Effect.Effect<string, EnqueueError> =>
  Effect.map(enqueueOne(stores, item), (id) => {
    countSent(fiber, stores, item, 1)
    return id
  })

/** Enqueues tasks of one definition in bulk; each has its own answer, in order. */
export const enqueueAll = (
  stores: Stores,
  items: ReadonlyArray<PreparedTask>
): Effect.Effect<ReadonlyArray<EnqueueExit>> =>
  Effect.withFiber((fiber) => {
    const [first] = items
    if (first === undefined) return Effect.succeed([])
    const fusion = fusionOf(stores)
    const all =
      fusion !== undefined
        ? enqueueAllFused(fusion, stores, items)
        : first.reservation === undefined
          ? publishThenCreateAll(stores, items)
          : Effect.forEach(items, (item) => Effect.exit(reserveThenPublish(stores, item)), {
              concurrency: "unbounded"
            })
    return Effect.map(all, (answers) => {
      countSent(fiber, stores, first, answers.filter(Exit.isSuccess).length)
      return answers
    })
  })

const enqueueAllFused = (fusion: FusedService, stores: Stores, items: ReadonlyArray<PreparedTask>) =>
  Effect.flatMap(fusion.enqueue.many(items.map(fusedItem)), (created) =>
    Effect.forEach(items, (item, i): Effect.Effect<EnqueueExit> => {
      const exit = created[i]!
      return Exit.isSuccess(exit)
        ? Effect.exit(afterFused(stores, item, exit.value))
        : Effect.succeed(Exit.map(exit, () => item.head.id))
    })
  )

/** All messages, then the records of those that were sent. */
const publishThenCreateAll = Effect.fnUntraced(function* (
  { backend, broker }: Stores,
  items: ReadonlyArray<PreparedTask>
) {
  const published = yield* broker.publish.many(items.map((item) => envelopeOf(item)))
  const accepted = items.filter((_, i) => Exit.isSuccess(published[i]!))
  const created = backend.configured ? yield* backend.create.many(accepted.map((item) => recordOf(item))) : []
  let next = 0
  return items.map(({ head }, i): EnqueueExit => {
    const last: Exit.Exit<unknown, EnqueueError> = Exit.isSuccess(published[i]!)
      ? (created[next++] ?? published[i])
      : published[i]!
    return Exit.map(last, () => head.id)
  })
})
