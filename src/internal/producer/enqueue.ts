/**
 * Enqueues prepared tasks: each becomes a record and a message.
 *
 * Where the stores are not fused, the record comes first, as a reservation; then the message is published, and the
 * reservation is marked. A message therefore always has a record, and one without is of a task that was forgotten or has
 * outlived its retention. A crash between the steps leaves a reservation: a request that finds it publishes the message
 * again, under the reserved id, and the store removes it an hour after the last of them. A replay of a dead letter takes
 * the same steps (`DeadLetters.replay`), so the reservation may be of a later generation.
 */
import { Clock, Effect, Exit, type Fiber } from "effect"
import type { Backend } from "../../Backend.ts"
import type { Created, NewRecord, TaskRecord } from "../../BackendDriver.ts"
import type { Broker } from "../../Broker.ts"
import type { Envelope } from "../../BrokerDriver.ts"
import { type EnqueueError, IdempotencyConflict } from "../../EnqueueError.ts"
import { BackendNotConfigured } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import * as defaults from "../defaults.ts"
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
  /** Whether the store subscribes to the task's end when it creates the record. Only without a reservation. */
  readonly subscribe?: boolean | undefined
}

/** The services that tasks are enqueued in. */
export interface Stores {
  readonly backend: Backend["Service"]
  readonly broker: Broker["Service"]
}

/** The id of the task, which is that of an earlier task where the key or id was taken by the same request. */
export type EnqueueExit = Exit.Exit<string, EnqueueError>

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
  { delayMillis, head, reservation, retentionMillis, subscribe }: PreparedTask,
  reservedMillis: number | undefined
): NewRecord => ({
  id: head.id,
  task: head.task,
  incarnation: head.incarnation ?? "",
  queue: head.queue,
  key: reservation?.key,
  payloadHash: reservation?.payloadHash ?? "",
  delayMillis,
  expiresMillis: head.expires,
  retentionMillis,
  reservedMillis,
  ...(subscribe === true && { subscribe })
})

/** Returns the record of a new task as it is created, but for the clock, which is that of this process. */
const createdRecord = ({ head }: PreparedTask, enqueuedAt: number): TaskRecord => ({
  id: head.id,
  task: head.task,
  state: "PENDING",
  incarnation: "",
  generation: 0,
  attempt: 0,
  retries: 0,
  crashes: 0,
  queue: head.queue,
  exit: null,
  progress: null,
  worker: null,
  cancelRequested: false,
  ended: null,
  enqueuedAt,
  startedAt: null,
  finishedAt: null,
  expiresAt: null
})

const conflictOf = ({ head, reservation }: PreparedTask, taskId: string): IdempotencyConflict =>
  new IdempotencyConflict({ taskId, taskName: head.task, key: reservation?.key ?? head.id })

/** Returns the task under the id, incarnation and generation of the record that holds its key or its id. */
const asExisting = (
  { head, ...task }: PreparedTask,
  { generation, id, incarnation }: Extract<Created, { readonly _tag: "Existing" }>
): PreparedTask => {
  const { incarnation: _, ...rest } = head
  return { ...task, head: { ...rest, id, generation, ...(incarnation === "" ? {} : { incarnation }) } }
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

/** Returns whether a reservation that was made or renewed at a time may have been removed meanwhile. */
export const mayHaveLapsed = (since: bigint): Effect.Effect<boolean> =>
  Effect.map(
    Clock.monotonicTimeNanos,
    (now) => now - since > BigInt(defaults.reservedMillis / 2) * 1_000_000n
  )

/**
 * Publishes the messages of reserved tasks and marks the reservations. If that took so long that a reservation may have
 * been removed, and its record is gone, the task is enqueued again, since its message is dropped.
 */
const publishReserved = Effect.fnUntraced(function* (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>,
  since: bigint
): Effect.fn.Return<ReadonlyMap<PreparedTask, EnqueueExit>> {
  const { backend, broker } = stores
  const published = yield* broker.publish.many(tasks.map(envelopeOf))
  const exits = new Map<PreparedTask, EnqueueExit>(
    tasks.map((task, i) => [task, Exit.map(published[i]!, () => task.head.id)])
  )
  const sent = tasks.filter((_, i) => Exit.isSuccess(published[i]!))
  const marked = yield* backend.markPublished.many(
    sent.map(({ head: { generation, id, incarnation = "" } }) => ({ id, incarnation, generation }))
  )
  const isLate = yield* mayHaveLapsed(since)
  const lost = sent.filter((task, i) => {
    const mark = marked[i]!
    if (Exit.isFailure(mark)) exits.set(task, Exit.failCause(mark.cause))
    return isLate && Exit.isSuccess(mark) && !mark.value
  })
  if (lost.length > 0) {
    const again = yield* reserveThenPublish(stores, lost)
    lost.forEach((task, i) => exits.set(task, again[i]!))
  }
  return exits
})

/** Reserves records, publishes their messages, and marks the reservations. What was begun is finished. */
const reserveThenPublish = (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>
): Effect.Effect<ReadonlyArray<EnqueueExit>> =>
  Effect.gen(function* () {
    const since = yield* Clock.monotonicTimeNanos
    const created = yield* stores.backend.create.many(
      tasks.map((task) => recordOf(task, defaults.reservedMillis))
    )
    const found = tasks.map((task, i) => recorded(task, created[i]!))
    const reserved = found.flatMap((one) => (one._tag === "Publish" ? [one.task] : []))
    const exits = yield* publishReserved(stores, reserved, since)
    return found.map((one) => (one._tag === "Done" ? one.exit : exits.get(one.task)!))
  }).pipe(Effect.uninterruptible)

const fusedTask = (task: PreparedTask) => ({
  record: recordOf(task, undefined),
  message: envelopeOf(task)
})

/** Enqueues those tasks in steps for which a fused enqueue found a reservation, which others have made in steps. */
const afterFused = (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>,
  created: ReadonlyArray<Exit.Exit<Created, EnqueueError>>
): Effect.Effect<ReadonlyArray<EnqueueExit>> => {
  const done = new Map<PreparedTask, EnqueueExit>()
  const reserved = tasks.filter((task, i) => {
    const exit = created[i]!
    const isNew = Exit.isSuccess(exit) && exit.value._tag === "Created"
    const found: Recorded = isNew ? { _tag: "Done", exit: Exit.succeed(task.head.id) } : recorded(task, exit)
    if (found._tag === "Done") done.set(task, found.exit)
    return found._tag === "Publish"
  })
  if (reserved.length === 0) return Effect.succeed(tasks.map((task) => done.get(task)!))
  return Effect.map(reserveThenPublish(stores, reserved), (exits) => {
    reserved.forEach((task, i) => done.set(task, exits[i]!))
    return tasks.map((task) => done.get(task)!)
  })
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
  queue: string,
  count: number
): void => metrics.forQueue(broker.name, queue).sent.updateUnsafe(count, fiber.context)

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
): Effect.Effect<string, EnqueueError> => {
  if (task.subscribe === true) {
    const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
    stores.backend.subscriptions?.onCreate(createdRecord(task, now))
  }
  return Effect.map(enqueueOne(stores, task), (id) => {
    countSent(fiber, stores, task.head.queue, 1)
    return id
  })
}

/** Enqueues tasks of one definition in bulk. Each has its own exit, in order. */
export const enqueueAll = (
  stores: Stores,
  tasks: ReadonlyArray<PreparedTask>
): Effect.Effect<ReadonlyArray<EnqueueExit>> =>
  Effect.withFiber((fiber) => {
    if (tasks.length === 0) return Effect.succeed([])
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
      const sent = new Map<string, number>()
      for (const [i, { head }] of tasks.entries()) {
        if (Exit.isSuccess(answers[i]!)) sent.set(head.queue, (sent.get(head.queue) ?? 0) + 1)
      }
      for (const [queue, count] of sent) countSent(fiber, stores, queue, count)
      return answers
    })
  })
