/**
 * Lists, replays and removes dead letters: messages that are not run again unless they are replayed.
 *
 * A dead letter is written for a task that fails for good, that crashes its workers, whose name no worker knows, or whose
 * payload does not decode, and for bytes that are no message. Dead letters are kept in the backend, whatever the broker,
 * for two weeks.
 *
 * **Example** (Replaying the failures of a task)
 *
 * ```ts
 * import { DeadLetters, Task } from "chicory"
 * import { Schema, Stream } from "effect"
 *
 * const Notify = Task.make("user.notify", {
 *   payload: { userId: Schema.String },
 *   error: Schema.String
 * })
 *
 * export const program = DeadLetters.stream(Notify).pipe(
 *   Stream.filter((letter) => letter.reason._tag === "Failed"),
 *   Stream.runForEach((letter) => DeadLetters.replay(letter.id))
 * )
 * ```
 *
 * @since 0.1.0
 * @module
 */
import { Array as Arr, type DateTime, Effect, Option, type Result, Schema, Stream } from "effect"
import { Backend } from "./Backend.ts"
import type { DeadLetter, DeadLetterPosition } from "./BackendDriver.ts"
import { Broker } from "./Broker.ts"
import type { EnqueueError } from "./EnqueueError.ts"
import { toDate } from "./internal/dates.ts"
import { insideTransaction } from "./internal/driver/driverCalls.ts"
import { stringify } from "./internal/json.ts"
import { decodedText, wholeNumber } from "./internal/options.ts"
import { enqueue, type Stores } from "./internal/producer/enqueue.ts"
import { reopenThenPublish } from "./internal/producer/replay.ts"
import * as TaskCodec from "./internal/task/TaskCodec.ts"
import { type TaskDefinition, definitionOf, retentionOf } from "./internal/task/TaskDefinition.ts"
import * as TaskId from "./internal/task/TaskId.ts"
import { BackendError, type BackendNotConfigured, type BrokerError, type ReadError } from "./StoreError.ts"
import type * as Task from "./Task.ts"
import * as TaskFailed from "./TaskFailed.ts"
import * as TaskMessage from "./TaskMessage.ts"

const PositionText = Schema.StringFromBase64Url.pipe(
  Schema.decodeTo(Schema.fromJsonString(Schema.Tuple([Schema.Natural, Schema.Natural])))
)
const encodePosition = Schema.encodeSync(PositionText)
const decodePosition = Schema.decodeUnknownOption(PositionText)

/**
 * A place in the order of all dead letters, as text of letters, digits, `-` and `_`.
 *
 * **When to use**
 *
 * Use as a schema for a cursor that comes from elsewhere, such as the query of a request. An entry has its own.
 *
 * @see {@link Page} for the page after a cursor
 *
 * @category models
 * @since 0.1.0
 */
export const Cursor = Schema.String.check(
  Schema.makeFilter((text) => Option.isSome(decodePosition(text)) || "the cursor of a dead letter")
).pipe(Schema.brand("chicory/DeadLetters/Cursor"))

/**
 * @see {@link Entry} for where a cursor comes from
 *
 * @category models
 * @since 0.1.0
 */
export type Cursor = typeof Cursor.Type

const cursorOf = ({ at, order }: DeadLetterPosition): Cursor => encodePosition([at, order]) as Cursor

const positionOf = (cursor: Cursor): DeadLetterPosition => {
  const [at, order] = decodedText("DeadLetters.list: after", cursor, decodePosition, "the cursor of an entry")
  return { at, order }
}

/**
 * A dead letter. `P` and `E` are the payload and the error of its task.
 *
 * @see {@link list}
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry<out P, out E> {
  /** The id of the dead letter, which is not that of the task. */
  readonly id: string
  /** Its place among all dead letters, for the page that follows it. */
  readonly cursor: Cursor
  /** `None` for a message that no run could be made of. */
  readonly taskId: Option.Option<string>
  /** `None` for a message that no run could be made of. */
  readonly taskName: Option.Option<string>
  readonly queue: string
  /**
   * The payload, or the error of decoding it. Its message has no value of the payload; its `cause` is what the code of the
   * schema threw, if it did.
   */
  readonly payload: Result.Result<P, Schema.SchemaError>
  /** Why the task ended; `ResultInvalid` if the stored reason does not decode. */
  readonly reason: TaskFailed.Reason<E>
  /** Starts of the task's generation, without those that were released. */
  readonly attempts: number
  /** When it was written, by the store's clock. */
  readonly at: DateTime.Utc
  /** The message as it was delivered, byte for byte. */
  readonly raw: string | Uint8Array
}

/**
 * Selects a page of dead letters.
 *
 * @category options
 * @since 0.1.0
 */
export interface Page {
  /** How many to return at most: 1 to 10,000. Default 100. */
  readonly limit?: number | undefined
  /**
   * The cursor of the last entry of the page before, which need not be there any more. Default: the first page.
   */
  readonly after?: Cursor | undefined
}

/**
 * Error of a replay of a dead letter whose bytes are no message, or no message of its task. The dead letter stays.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotReplayable extends Schema.TaggedError<NotReplayable>("chicory/NotReplayable")(
  "NotReplayable",
  {
    /** The id of the dead letter. */
    id: Schema.String,
    /** Why it cannot be sent. */
    issue: Schema.String
  }
) {
  override get message(): string {
    return `dead letter ${this.id} cannot be replayed: ${this.issue}`
  }
}

const DEFAULT_LIMIT = 100

const payloadOf = (letter: DeadLetter, definition: TaskDefinition | undefined) =>
  Effect.flatMap(TaskMessage.decode(letter.body), ({ payload }) =>
    definition === undefined ? Effect.succeed(payload) : definition.payload.decode(payload)
  ).pipe(Effect.result)

const reasonOf = (
  letter: DeadLetter,
  definition: TaskDefinition | undefined
): Effect.Effect<TaskFailed.Reason<unknown>, never, unknown> => {
  if (letter.exit === null)
    return Effect.succeed(new TaskFailed.WorkerLost({ worker: letter.worker ?? "unknown" }))
  const unreadable = (issue: ReturnType<typeof TaskCodec.issueOf>) =>
    new TaskFailed.ResultInvalid({ side: "reader", ...issue })
  return Effect.match((definition?.result ?? TaskCodec.json).decodeExit(letter.exit), {
    onFailure: (error) => unreadable(TaskCodec.issueOf(error)),
    onSuccess: (exit) =>
      exit._tag === "Failure"
        ? exit.reason
        : unreadable({ issue: "the dead letter has the exit of a success" })
  })
}

const toEntry =
  (definition: TaskDefinition | undefined) =>
  (letter: DeadLetter): Effect.Effect<Entry<unknown, unknown>, never, unknown> =>
    Effect.map(
      Effect.all([payloadOf(letter, definition), reasonOf(letter, definition)]),
      ([payload, reason]) => ({
        id: letter.id,
        cursor: cursorOf(letter),
        taskId: Option.fromNullOr(letter.taskId),
        taskName: Option.fromNullOr(letter.task),
        queue: letter.queue,
        payload,
        reason,
        attempts: letter.attempts,
        at: toDate(letter.at),
        raw: letter.body
      })
    )

const isTask = (u: Task.Any | Page | undefined): u is Task.Any => u !== undefined && "name" in u

const listPage = (task: Task.Any | undefined, page: Page | undefined) =>
  Effect.suspend(() =>
    Effect.flatMap(
      Backend.use((backend) =>
        backend.listDeadLetters({
          task: task?.name,
          limit: wholeNumber("DeadLetters.list: limit", page?.limit ?? DEFAULT_LIMIT, 1, 10_000),
          after: page?.after === undefined ? undefined : positionOf(page.after)
        })
      ),
      Effect.forEach(toEntry(task === undefined ? undefined : definitionOf(task)))
    )
  )

/**
 * Reads one page of dead letters, newest first.
 *
 * **Details**
 *
 * With a task, lists its dead letters, with their payloads and reasons decoded by its schemas. Without one, lists all
 * dead letters, also of tasks that this program does not know, with payloads and errors as JSON. A `limit` out of range
 * is a defect. A page ends early, with at least one entry, before it has more than about 2 MiB of payloads and errors; an
 * empty page is the last. A page after a cursor has what is older, also if its entry was removed or replayed since. A task that
 * fails again after a replay has a new dead letter, the newest of all, so no later page has it.
 *
 * @see {@link stream} for all pages
 * @see {@link count} to count them
 *
 * @category getters
 * @since 0.1.0
 */
export const list: {
  <
    N extends string,
    P extends Schema.Constraint,
    A extends Schema.Constraint,
    E extends Schema.Constraint,
    G extends Schema.Constraint
  >(
    task: Task.Task<N, P, A, E, G>,
    page?: Page
  ): Effect.Effect<
    ReadonlyArray<Entry<P["Type"], E["Type"]>>,
    BackendNotConfigured | BackendError,
    Backend | P["DecodingServices"] | E["DecodingServices"]
  >
  (
    page?: Page
  ): Effect.Effect<
    ReadonlyArray<Entry<Schema.Json, Schema.Json>>,
    BackendNotConfigured | BackendError,
    Backend
  >
} = ((...args: [Page?] | [Task.Any, Page?]) =>
  isTask(args[0]) ? listPage(args[0], args[1]) : listPage(undefined, args[0])) as never

/**
 * Streams all dead letters, newest first, page by page: the next page is read when the last one was taken.
 *
 * **Details**
 *
 * Takes the arguments of `list`: `limit` is the size of a page, and `after` is where the stream begins. The stream ends,
 * also while dead letters are written: it has each one that was there when it began and has not been removed, once.
 *
 * @see {@link list} for one page
 *
 * @category getters
 * @since 0.1.0
 */
export const stream: {
  <
    N extends string,
    P extends Schema.Constraint,
    A extends Schema.Constraint,
    E extends Schema.Constraint,
    G extends Schema.Constraint
  >(
    task: Task.Task<N, P, A, E, G>,
    page?: Page
  ): Stream.Stream<
    Entry<P["Type"], E["Type"]>,
    BackendNotConfigured | BackendError,
    Backend | P["DecodingServices"] | E["DecodingServices"]
  >
  (page?: Page): Stream.Stream<Entry<Schema.Json, Schema.Json>, BackendNotConfigured | BackendError, Backend>
} = ((...args: [Page?] | [Task.Any, Page?]) => {
  const [task, page] = isTask(args[0]) ? [args[0], args[1]] : [undefined, args[0]]
  return Stream.paginate(page?.after, (after) =>
    Effect.map(listPage(task, { ...page, after }), (entries) => [
      entries,
      Option.map(Arr.last(entries), ({ cursor }) => cursor)
    ])
  )
}) as never

/**
 * Counts the dead letters of a task, or all of them.
 *
 * @category getters
 * @since 0.1.0
 */
export const count = (task?: Task.Any): Effect.Effect<number, BackendNotConfigured | BackendError, Backend> =>
  Backend.use((backend) => backend.countDeadLetters(task?.name))

const notReplayable = (id: string) => (error: { readonly message: string }) =>
  new NotReplayable({ id, issue: error.message })

/** Decodes the message of a dead letter, which has to be that of its task. */
const decodeMessage = (letter: DeadLetter): Effect.Effect<TaskMessage.TaskMessage, NotReplayable> =>
  Effect.flatMap(Effect.mapError(TaskMessage.decode(letter.body), notReplayable(letter.id)), (message) => {
    const { id, incarnation = "", task } = message
    const isOfItsTask =
      letter.taskId === null ||
      (id === letter.taskId && task === letter.task && incarnation === letter.incarnation)
    return isOfItsTask
      ? Effect.succeed(message)
      : Effect.fail(
          new NotReplayable({
            id: letter.id,
            issue: `its message is that of another task, ${task} (${id})`
          })
        )
  })

/** Encodes a message again. A message that no worker could decode is refused, because its task would never end. */
const encodeMessage = (
  id: string,
  payload: unknown,
  head: TaskMessage.Head
): Effect.Effect<string, NotReplayable> =>
  Effect.map(stringify(payload), (text) => TaskMessage.encode(head, text)).pipe(
    Effect.tap(TaskMessage.decode),
    Effect.mapError(notReplayable(id))
  )

/**
 * Sends the message of a dead letter again, and removes the dead letter. Returns `false` if there is no such dead letter.
 *
 * **Details**
 *
 * The task starts a new generation: its state is `PENDING` again, its handles wait again, and nothing is counted.
 * Messages of its older generations are dropped. A replay that fails half-way is safe to repeat, and is finished by the
 * next one. If none follows within an hour, and no message of it was sent, the record of the task is removed: its waiters
 * fail with `Forgotten`.
 *
 * Fails with `NotReplayable` if the bytes are no message, or no message of its task, or if the id was enqueued anew after
 * the task was forgotten or had outlived its retention.
 *
 * @see {@link replayAsNew} to send it under an id of its own
 * @see {@link remove} to drop it instead
 *
 * @category managing
 * @since 0.1.0
 */
export const replay: (
  id: string
) => Effect.Effect<
  boolean,
  NotReplayable | BrokerError | BackendNotConfigured | BackendError,
  Broker | Backend
> = Effect.fn("DeadLetters.replay")(function* (id: string) {
  const backend = yield* Backend
  const broker = yield* Broker
  const [letter] = yield* backend.getDeadLetters([id])
  if (letter === undefined) return false
  const { payload, ...head } = yield* decodeMessage(letter)
  const isParked = letter.taskId === null
  const generation = isParked ? head.generation : letter.generation + 1
  const body = yield* encodeMessage(id, payload, {
    ...head,
    queue: letter.queue,
    generation,
    retries: 0,
    // of a parked message it is not known whether it has a record
    ...(isParked ? { unrecorded: true } : {})
  })
  const replayed = yield* reopenThenPublish({ backend, broker }, letter, {
    id: head.id,
    task: head.task,
    queue: letter.queue,
    priority: head.priority,
    delayMillis: 0,
    incarnation: head.incarnation,
    generation,
    body
  })
  if (replayed === "Refused") {
    return yield* new NotReplayable({
      id,
      issue: `task ${head.id} was enqueued anew since then; replayAsNew sends the message as a task of its own`
    })
  }
  return replayed === "Sent"
})

/** Fails inside a transaction: the new task would join it, and the removal of the dead letter cannot. */
const refuseInTransaction = ({ backend, broker }: Stores): Effect.Effect<void, BackendError> =>
  Effect.withFiber(({ context }) =>
    backend.read.isUnbatched(context) || broker.publish.isUnbatched(context)
      ? Effect.fail(
          new BackendError({
            operation: `${backend.name} backend: replayAsNew`,
            retryable: false,
            cause: insideTransaction()
          })
        )
      : Effect.void
  )

/**
 * Sends the message of a dead letter as a new task, and removes the dead letter. Returns the id of the new task, or `None`
 * if there is no such dead letter.
 *
 * **When to use**
 *
 * Use it where the id of the task belongs to a later enqueue by now, or where the old outcome has to stay.
 *
 * **Details**
 *
 * The new task has the payload, the queue and the priority of the old one, no delay, no idempotency key, and the
 * retention of the backend until a worker starts it. A call that fails half-way is safe to repeat: the id of the new task
 * follows from that of the dead letter.
 *
 * Fails with `NotReplayable` if the bytes are no message, or no message of its task.
 *
 * **Gotchas**
 *
 * Inside a transaction of the `SqlClient` of the store it fails at once with a `BackendError`: call it after the commit.
 *
 * @see {@link replay} to run the task itself again
 *
 * @category managing
 * @since 0.1.0
 */
export const replayAsNew: (
  id: string
) => Effect.Effect<Option.Option<string>, NotReplayable | EnqueueError, Broker | Backend> = Effect.fn(
  "DeadLetters.replayAsNew"
)(function* (id: string) {
  const stores = { backend: yield* Backend, broker: yield* Broker }
  const [letter] = yield* stores.backend.getDeadLetters([id])
  if (letter === undefined) return Option.none()
  yield* refuseInTransaction(stores)
  const { expires: _, payload, ...head } = yield* decodeMessage(letter)
  const text = yield* Effect.mapError(stringify(payload), notReplayable(id))
  const taskId = yield* Effect.withFiber((fiber) =>
    enqueue(fiber, stores, {
      head: {
        ...head,
        id: TaskId.derive(`replay of ${id}`),
        incarnation: TaskId.makeIncarnation(),
        queue: letter.queue,
        generation: 0,
        retries: 0
      },
      payload: text,
      delayMillis: 0,
      retentionMillis: retentionOf(undefined, stores.backend),
      reservation: { key: undefined, payloadHash: "" }
    })
  )
  yield* stores.backend.removeDeadLetters([id])
  return Option.some(taskId)
})

/**
 * Removes a dead letter. Returns `false` if there is no such dead letter.
 *
 * @see {@link purge} to remove all
 *
 * @category managing
 * @since 0.1.0
 */
export const remove = (id: string): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Backend.use((backend) => Effect.map(backend.removeDeadLetters([id]), ([removed]) => removed ?? false))

/**
 * Removes the dead letters of a task, or all of them, and returns how many it removed. Those that are written meanwhile
 * stay.
 *
 * @see {@link remove} to remove one
 *
 * @category managing
 * @since 0.1.0
 */
export const purge: (task?: Task.Any) => Effect.Effect<number, ReadError, Backend> = Effect.fn(
  "DeadLetters.purge"
)(function* (task?: Task.Any) {
  const backend = yield* Backend
  let purged = 0
  let after: DeadLetterPosition | undefined
  while (true) {
    const page = yield* backend.listDeadLetterIds({ task: task?.name, limit: DEFAULT_LIMIT, after })
    if (!Arr.isReadonlyArrayNonEmpty(page)) return purged
    after = Arr.lastNonEmpty(page)
    const removed = yield* backend.removeDeadLetters(Arr.map(page, ({ id }) => id))
    purged += removed.filter(Boolean).length
  }
})
