/**
 * Enqueues prepared tasks: each becomes a record and a message.
 *
 * Where the stores are not fused, the record comes first, as a reservation; then the message is published, and the
 * reservation is marked. A message therefore always has a record, and one without is of a task that was forgotten or has
 * outlived its retention. A crash between the steps leaves a reservation: a request that finds it publishes the message
 * again, under the reserved id, and the store removes it after a while.
 */
import { Clock, Effect, Exit, type Fiber } from "effect"
import type { Backend } from "../../Backend.ts"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import type { Broker } from "../../Broker.ts"
import type { Envelope } from "../../BrokerDriver.ts"
import { type EnqueueError, IdempotencyConflict } from "../../EnqueueError.ts"
import { BackendNotConfigured } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
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

/**
 * How long a record is reserved for its message, in milliseconds: a producer may stand still for as long between the two.
 */
const RESERVED_MILLIS = 60 * 60 * 1000

const envelopeOf = ({ delayMillis, head, payload }: PreparedTask): Envelope => ({
  id: head.id,
  task: head.task,
  queue: head.queue,
  priority: head.priority,
  delayMillis,
  incarnation: head.incarnation,
  generation: head.generation,
  body: TaskMessage.encode(head, payload)
})

const recordOf = (
  { head, reservation, retentionMillis }: PreparedTask,
  reservedMillis: number | undefined
): NewRecord => ({
  id: head.id,
  task: head.task,
  incarnation: head.incarnation ?? "",
  key: reservation?.key,
  payloadHash: reservation?.payloadHash ?? "",
  expiresMillis: head.expires,
  retentionMillis,
  reservedMillis
})

const conflictOf = ({ head, reservation }: PreparedTask, taskId: string): IdempotencyConflict =>
  new IdempotencyConflict({ taskId, taskName: head.task, key: reservation?.key ?? head.id })

/** Returns the task under the id and incarnation of the record that holds its key or its id. */
const asExisting = (
  { head, ...task }: PreparedTask,
  { id, incarnation }: Extract<Created, { readonly _tag: "Existing" }>
): PreparedTask => {
  const { incarnation: _, ...rest } = head
  return { ...task, head: { ...rest, id, ...(incarnation === "" ? {} : { incarnation }) } }
}

/** A task whose record was created or found. */
type Recorded =
  | { readonly _tag: "Done"; readonly exit: EnqueueExit }
  | { readonly _tag: "Publish"; readonly task: PreparedTask }

const recorded = (task: PreparedTask, created: Exit.Exit<Created, EnqueueError>): Recorded => {
  if (Exit.isFailure(created)) return { _tag: "Done", exit: Exit.failCause(created.cause) }
  const found = created.value
  if (found._tag === "Created") return { _tag: "Publish", task }
  if (!found.same) return { _tag: "Done", exit: Exit.fail(conflictOf(task, found.id)) }
  return found.published
    ? { _tag: "Done", exit: Exit.succeed(found.id) }
    : { _tag: "Publish", task: asExisting(task, found) }
}

/**
 * Publishes the messages of reserved tasks and marks the reservations. If that took so long that a reservation may have
 * been removed, and its record is gone, the task is enqueued again, since its message is dropped.
 */
const publishReserved = Effect.fnUntraced(function* (
  stores: Stores,
  reserved: ReadonlyArray<Recorded>,
  since: bigint
): Effect.fn.Return<ReadonlyArray<EnqueueExit>> {
  const { backend, broker } = stores
  const tasks = reserved.flatMap((one) => (one._tag === "Publish" ? [one.task] : []))
  const published = yield* broker.publish.many(tasks.map(envelopeOf))
  const sent = tasks.filter((_, i) => Exit.isSuccess(published[i]!))
  const marked = yield* backend.markPublished.many(sent.map(({ head }) => head.id))
  const isLate = (yield* Clock.monotonicTimeNanos) - since > BigInt(RESERVED_MILLIS / 2) * 1_000_000n
  const lost = isLate ? sent.filter((_, i) => Exit.isSuccess(marked[i]!) && !marked[i].value) : []
  const again = new Map(
    lost.length === 0 ? [] : (yield* reserveThenPublish(stores, lost)).map((exit, i) => [lost[i], exit])
  )
  let next = 0
  let nextSent = 0
  return reserved.map((one): EnqueueExit => {
    if (one._tag === "Done") return one.exit
    const { task } = one
    const exit = published[next++]!
    if (Exit.isFailure(exit)) return Exit.failCause(exit.cause)
    const mark: Exit.Exit<unknown, EnqueueError> = marked[nextSent++]!
    return again.get(task) ?? Exit.map(mark, () => task.head.id)
  })
})

/** Reserves records, publishes their messages, and marks the reservations. What was begun is finished. */
const reserveThenPublish = (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>
): Effect.Effect<ReadonlyArray<EnqueueExit>> =>
  Effect.flatMap(Clock.monotonicTimeNanos, (since) =>
    Effect.flatMap(
      stores.backend.create.many(tasks.map((task) => recordOf(task, RESERVED_MILLIS))),
      (created) =>
        publishReserved(
          stores,
          tasks.map((task, i) => recorded(task, created[i]!)),
          since
        )
    )
  ).pipe(Effect.uninterruptible)

const fusedTask = (task: PreparedTask) => ({
  record: recordOf(task, undefined),
  message: envelopeOf(task)
})

/** Publishes the messages of those reservations that a fused enqueue found: others reserved them in two steps. */
const afterFused = (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>,
  created: ReadonlyArray<Exit.Exit<Created, EnqueueError>>
): Effect.Effect<ReadonlyArray<EnqueueExit>> => {
  const found = tasks.map((task, i): Recorded => {
    const exit = created[i]!
    return Exit.isSuccess(exit) && exit.value._tag === "Created"
      ? { _tag: "Done", exit: Exit.succeed(task.head.id) }
      : recorded(task, exit)
  })
  const done = found.flatMap((one) => (one._tag === "Done" ? [one.exit] : []))
  return done.length === found.length
    ? Effect.succeed(done)
    : Effect.uninterruptible(
        Effect.flatMap(Clock.monotonicTimeNanos, (since) => publishReserved(stores, found, since))
      )
}

/** Publishes messages whose records their workers create. */
const publishUnrecorded = (
  { broker }: Stores,
  tasks: ReadonlyArray<PreparedTask>
): Effect.Effect<ReadonlyArray<EnqueueExit>> => {
  const sendable = tasks.filter(({ reservation }) => reservation === undefined)
  return Effect.map(
    broker.publish.many(
      sendable.map(({ head, ...task }) => envelopeOf({ ...task, head: { ...head, unrecorded: true } }))
    ),
    (published) => {
      let next = 0
      return tasks.map((task): EnqueueExit => {
        if (task.reservation !== undefined)
          return Exit.fail(withoutBackend(task.head.id, task.reservation.key))
        const exit: Exit.Exit<unknown, EnqueueError> = published[next++]!
        return Exit.map(exit, () => task.head.id)
      })
    }
  )
}

const withoutBackend = (taskId: string, key: string | undefined): BackendNotConfigured =>
  new BackendNotConfigured({
    taskId,
    operation: key === undefined ? "an enqueue with a given id" : "an enqueue with an idempotency key"
  })

const countSent = (
  fiber: Fiber.Fiber<unknown, unknown>,
  { broker }: Stores,
  { head }: PreparedTask,
  count: number
): void => metrics.forQueue(broker.name, head.queue).sent.updateUnsafe(count, fiber.context)

const enqueueOne = (stores: Stores, task: PreparedTask): Effect.Effect<string, EnqueueError> => {
  const fusion = fusionOf(stores)
  const one = (exits: Effect.Effect<ReadonlyArray<EnqueueExit>>) => Effect.flatMap(exits, ([exit]) => exit!)
  if (fusion !== undefined) {
    return Effect.flatMap(fusion.enqueue.one(fusedTask(task)), (created) =>
      created._tag === "Created"
        ? Effect.succeed(task.head.id)
        : one(afterFused(stores, [task], [Exit.succeed(created)]))
    )
  }
  return one(
    stores.backend.configured ? reserveThenPublish(stores, [task]) : publishUnrecorded(stores, [task])
  )
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
        ? Effect.flatMap(fusion.enqueue.many(tasks.map(fusedTask)), (created) =>
            afterFused(stores, tasks, created)
          )
        : stores.backend.configured
          ? reserveThenPublish(stores, tasks)
          : publishUnrecorded(stores, tasks)
    return Effect.map(all, (answers) => {
      countSent(fiber, stores, first, answers.filter(Exit.isSuccess).length)
      return answers
    })
  })
