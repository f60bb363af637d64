/** The errors of `get`: `TaskFailed` with its reasons, and those beside it. */
import { AsyncResult, Backend, Broker, type DeadLetters, type Task, TaskFailed } from "chicory"
import { Cause, type DateTime, type Duration, Effect, Schema } from "effect"
import { Charge, DivideByZero, type Opener, type Sealer, Secret, Tick } from "./subjects.ts"
import {
  expectType,
  type Failure,
  fits,
  type GetError,
  type ReadError,
  type Success,
  typeOf,
  type WaitError
} from "./support.ts"

declare const ratio: AsyncResult.AsyncResult<number, DivideByZero>
const got = AsyncResult.get(ratio)

// one reason: the others stay in the error
const caught = got.pipe(
  Effect.catchReason("TaskFailed", "Failed", (reason, whole) => {
    expectType(reason).is<TaskFailed.Failed<DivideByZero>>(true)
    expectType(reason.retriesExhausted).is<boolean>(true)
    return Effect.succeed(reason.error.dividend + whole.attempts)
  })
)
expectType(caught).is<Effect.Effect<number, GetError<DivideByZero>, Backend.Backend>>(true)

// one reason and a rest: the task's own error is left
const flattened = got.pipe(
  Effect.catchReason(
    "TaskFailed",
    "Failed",
    ({ error }) => Effect.fail(error),
    (others) => Effect.die(others)
  )
)
expectType(flattened).is<Effect.Effect<number, DivideByZero | WaitError, Backend.Backend>>(true)

// several reasons, each with its fields
const told = got.pipe(
  Effect.catchReasons("TaskFailed", {
    Failed: ({ error }) => Effect.succeed(`${error.dividend} / 0`),
    Died: ({ defect }) => Effect.die(defect),
    TimedOut: ({ timeout }) => {
      expectType(timeout).is<Duration.Duration>(true)
      return Effect.succeed("slow")
    },
    Expired: ({ expiredAt }) => {
      expectType(expiredAt).is<DateTime.Utc>(true)
      return Effect.succeed("late")
    },
    PayloadInvalid: ({ issue }) => Effect.succeed(issue),
    ResultInvalid: ({ issue, side }) => {
      expectType(side).is<"worker" | "reader">(true)
      return Effect.succeed(issue)
    },
    WorkerLost: ({ worker }, { taskId, taskName }) =>
      Effect.succeed(`${taskName} ${taskId} vanished with ${worker}`),
    Cancelled: () => Effect.succeed("cancelled"),
    Forgotten: () => Effect.succeed("forgotten"),
    UnknownTask: () => Effect.succeed("unknown"),
    RetriesExhausted: () => Effect.succeed("tried")
  })
)
typeOf<Success<typeof told>>().is<string | number>(true)
typeOf<TaskFailed.Reason<DivideByZero>["_tag"]>().is<
  | "Failed"
  | "RetriesExhausted"
  | "Forgotten"
  | "Died"
  | "TimedOut"
  | "Cancelled"
  | "Expired"
  | "WorkerLost"
  | "UnknownTask"
  | "PayloadInvalid"
  | "ResultInvalid"
>(true)
expectType(got.pipe(Effect.unwrapReason("TaskFailed"))).is<
  Effect.Effect<number, WaitError | TaskFailed.Reason<DivideByZero>, Backend.Backend>
>(true)
// @ts-expect-error there is no such reason
got.pipe(Effect.catchReason("TaskFailed", "Exploded", () => Effect.void))

// a task without an error has the other reasons
const ticked = AsyncResult.get(Tick.result("0190")).pipe(
  Effect.catchReason("TaskFailed", "Died", ({ defect }) => Effect.logError(defect)),
  Effect.catchReason("TaskFailed", "Failed", ({ error }) => {
    expectType(error).is<never>(true)
    return Effect.void
  })
)
expectType(ticked).is<Effect.Effect<void, GetError<never>, Backend.Backend>>(true)

// a failure with a wider error takes a narrower one
declare const narrow: TaskFailed.TaskFailed<DivideByZero>
fits<TaskFailed.TaskFailed<DivideByZero | string>>(narrow)

// the errors beside it, by tag
const byTags = got.pipe(
  Effect.catchTags({
    TimeoutError: ({ state, taskId }) => Effect.succeed(`${taskId} ${state}`),
    BackendNotConfigured: ({ operation }) => Effect.succeed(operation)
  })
)
typeOf<Failure<typeof byTags>>().is<TaskFailed.TaskFailed<DivideByZero> | Backend.BackendError>(true)
typeOf<Success<typeof byTags>>().is<string | number>(true)

// `TimeoutError` shares its tag with Effect's own
const timed = AsyncResult.get(ratio, { timeout: "1 second" }).pipe(Effect.timeout("2 seconds"))
typeOf<Failure<typeof timed>>().is<GetError<DivideByZero> | Cause.TimeoutError>(true)
const whose = timed.pipe(
  Effect.catchTag("TimeoutError", (error) => {
    expectType(error).is<AsyncResult.TimeoutError | Cause.TimeoutError>(true)
    return Effect.succeed(Cause.isTimeoutError(error) ? "of Effect" : error.taskId)
  })
)
typeOf<Success<typeof whose>>().is<string | number>(true)

// what each error carries
declare const timeout: AsyncResult.TimeoutError
expectType(timeout.timeout).is<Duration.Duration>(true)
declare const backendError: Backend.BackendError
expectType(backendError.retryable).is<boolean>(true)
expectType(backendError.operation).is<string>(true)
expectType(backendError.taskId).is<string | undefined>(true)
declare const brokerError: Broker.BrokerError
expectType(brokerError.retryable).is<boolean>(true)
expectType(brokerError.operation).is<string>(true)
typeOf<Backend.ReadError>().is<ReadError>(true)
new Backend.BackendError({ operation: "read", retryable: true, cause: "refused" })
new Broker.BrokerError({ operation: "claim", retryable: false, cause: "password", taskId: "0190" })
// @ts-expect-error it does not say whether a retry helps
new Backend.BackendError({ operation: "read", cause: "refused" })
typeOf<Task.EnqueueError>().is<
  | Task.EncodeError
  | Task.PayloadTooLarge
  | Task.IdempotencyConflict
  | Task.Unsupported
  | Broker.BrokerError
  | Backend.BackendError
  | Backend.BackendNotConfigured
>(true)
// each names its task, as far as one is known
typeOf<Task.EnqueueError["taskId"]>().is<string | undefined>(true)
typeOf<
  (Task.EncodeError | Task.PayloadTooLarge | Task.IdempotencyConflict | Task.Unsupported)["taskId"]
>().is<string>(true)
declare const partly: Task.PartialEnqueue
expectType(partly.accepted).is<ReadonlyArray<string>>(true)
expectType(partly.error).is<Task.EnqueueError>(true)
declare const notReplayable: DeadLetters.NotReplayable
expectType(notReplayable.issue).is<string>(true)

// schema: `TaskFailed` as JSON, for other protocols
expectType(TaskFailed.schema(DivideByZero)).is<
  Schema.Codec<TaskFailed.TaskFailed<DivideByZero>, Schema.Json, never, never>
>(true)
expectType(TaskFailed.schema(Charge.errorSchema)).is<
  Schema.Codec<TaskFailed.TaskFailed<(typeof Charge.errorSchema)["Type"]>, Schema.Json, never, never>
>(true)
expectType(TaskFailed.schema(Schema.Never)).is<Schema.Codec<TaskFailed.TaskFailed<never>, Schema.Json>>(true)
expectType(TaskFailed.schema(Secret)).is<
  Schema.Codec<TaskFailed.TaskFailed<string>, Schema.Json, Opener, Sealer>
>(true)
expectType(Schema.encodeEffect(TaskFailed.schema(DivideByZero))(narrow)).is<
  Effect.Effect<Schema.Json, Schema.SchemaError, never>
>(true)
// @ts-expect-error a class, not a schema
TaskFailed.schema(Error)
