/**
 * Messages that will not be run again, unless they are replayed: what failed for good, what crashed its workers,
 * what nobody knew, what did not decode. They live in the backend, whatever the broker.
 *
 * @since 0.1.0
 * @module
 */
import { Array as Arr, type DateTime, Effect, Option, type Result, Schema } from "effect"
import { Backend } from "./Backend.ts"
import type { DeadLetter } from "./BackendDriver.ts"
import { Broker } from "./Broker.ts"
import { toDate } from "./internal/dates.ts"
import { stringify } from "./internal/json.ts"
import { wholeNumber } from "./internal/options.ts"
import * as TaskCodec from "./internal/task/TaskCodec.ts"
import { type TaskDefinition, definitionOf } from "./internal/task/TaskDefinition.ts"
import type { BackendError, BackendNotConfigured, ReadError, BrokerError } from "./StoreError.ts"
import type * as Task from "./Task.ts"
import * as TaskFailed from "./TaskFailed.ts"
import * as TaskMessage from "./TaskMessage.ts"

/** A dead letter. `P` and `E` are the payload and the error of its task. */
export interface Entry<out P, out E> {
  readonly id: string
  readonly taskId: Option.Option<string>
  readonly taskName: Option.Option<string>
  readonly queue: string
  /** The payload, or why it does not decode. */
  readonly payload: Result.Result<P, Schema.SchemaError>
  readonly reason: TaskFailed.Reason<E>
  readonly attempts: number
  readonly at: DateTime.Utc
  /** The message as it was. */
  readonly raw: string | Uint8Array
}

/** Which letters to list. */
export interface Page {
  /** At most so many. Default 100. */
  readonly limit?: number | undefined
  /** The id of the last entry of the page before. */
  readonly after?: string | undefined
}

/** The bytes of the letter are no message, or not one of its task: there is nothing to send again. The letter stays. */
export class NotReplayable extends Schema.TaggedError<NotReplayable>("chicory/NotReplayable")(
  "NotReplayable",
  {
    id: Schema.String,
    issue: Schema.String
  }
) {
  override get message(): string {
    return `dead letter ${this.id} cannot be replayed: ${this.issue}`
  }
}

const PAGE = 100

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
  const unreadable = (issue: string) => new TaskFailed.ResultInvalid({ side: "reader", issue })
  return Effect.match((definition?.result ?? TaskCodec.json).decodeExit(letter.exit), {
    onFailure: (error) => unreadable(error.message),
    onSuccess: (exit) => (exit._tag === "Failure" ? exit.reason : unreadable("the letter holds a success"))
  })
}

const toEntry =
  (definition: TaskDefinition | undefined) =>
  (letter: DeadLetter): Effect.Effect<Entry<unknown, unknown>, never, unknown> =>
    Effect.map(
      Effect.all([payloadOf(letter, definition), reasonOf(letter, definition)]),
      ([payload, reason]) => ({
        id: letter.id,
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

/** One page of letters, newest first: of one task, typed by it; or of all, also of tasks that are unknown here. */
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
} = ((taskOrPage?: Task.Any | Page, second?: Page) =>
  Effect.suspend(() => {
    const task = isTask(taskOrPage) ? taskOrPage : undefined
    const page = isTask(taskOrPage) ? second : taskOrPage
    return Effect.flatMap(
      Backend.use((backend) =>
        backend.listDeadLetters({
          task: task?.name,
          limit: wholeNumber("DeadLetters.list: limit", page?.limit ?? PAGE, 1, 10_000),
          after: page?.after
        })
      ),
      (letters) => Effect.forEach(letters, toEntry(task === undefined ? undefined : definitionOf(task)))
    )
  })) as never

/** How many letters there are, of one task or of all. */
export const count = (task?: Task.Any): Effect.Effect<number, BackendNotConfigured | BackendError, Backend> =>
  Backend.use((backend) => backend.countDeadLetters(task?.name))

/**
 * Sends the message of a letter again and removes the letter. The task starts a new generation: its handle waits
 * again, nothing is counted, and what is left of older generations is dropped. Safe to repeat: a replay that was
 * cut off is finished by the next. `false`: there is no such letter.
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
  const refuse = (error: Schema.SchemaError) => new NotReplayable({ id, issue: error.message })
  const { payload, ...head } = yield* Effect.mapError(TaskMessage.decode(letter.body), refuse)
  const isForeign = letter.taskId !== null && (head.id !== letter.taskId || head.task !== letter.task)
  if (isForeign) {
    return yield* new NotReplayable({ id, issue: `its bytes are of another task, ${head.task} (${head.id})` })
  }
  const generation = letter.taskId === null ? head.generation : letter.generation + 1
  const body = yield* Effect.map(stringify(payload), (text) =>
    TaskMessage.encode({ ...head, queue: letter.queue, generation, retries: 0 }, text)
  ).pipe(
    // a task whose message nobody can read would never end
    Effect.tap(TaskMessage.decode),
    Effect.mapError(refuse)
  )
  yield* backend.reopen([id])
  yield* broker.publish.one({
    id: head.id,
    task: head.task,
    queue: letter.queue,
    priority: head.priority,
    delayMillis: 0,
    generation,
    expiresMillis: head.expires,
    body
  })
  yield* backend.removeDeadLetters([id])
  return true
})

/** Removes a letter. `false`: there was none. */
export const remove = (id: string): Effect.Effect<boolean, BackendNotConfigured | BackendError, Backend> =>
  Backend.use((backend) => Effect.map(backend.removeDeadLetters([id]), ([removed]) => removed ?? false))

/** Removes all letters, or those of one task, and answers how many. */
export const purge: (task?: Task.Any) => Effect.Effect<number, ReadError, Backend> = Effect.fn(
  "DeadLetters.purge"
)(function* (task?: Task.Any) {
  const backend = yield* Backend
  let purged = 0
  while (true) {
    const ids = Arr.map(yield* backend.listDeadLetters({ task: task?.name, limit: PAGE }), ({ id }) => id)
    if (!Arr.isArrayNonEmpty(ids)) return purged
    const removed = yield* backend.removeDeadLetters(ids)
    purged += removed.filter(Boolean).length
  }
})
