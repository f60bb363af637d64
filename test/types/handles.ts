/** `AsyncResult`: what each of its functions returns, fails with and needs. */
import { AsyncResult, type Backend, type Task, type TaskFailed, TaskResult, TaskState } from "chicory"
import {
  type Context,
  type DateTime,
  Duration,
  Effect,
  Exit,
  Option,
  pipe,
  Result,
  Schedule,
  Schema,
  Stream
} from "effect"
import {
  Divide,
  DivideByZero,
  Import,
  type NoSuchAddress,
  type Opener,
  Reveal,
  type SendMail,
  type Tick
} from "./subjects.ts"
import {
  expectType,
  type Failure,
  fits,
  type GetError,
  type ReadError,
  type Store,
  type Success,
  typeOf,
  type WaitError
} from "./support.ts"

declare const ratio: AsyncResult.AsyncResult<number, DivideByZero>
declare const mailed: ReturnType<typeof SendMail.result>
declare const ticked: ReturnType<typeof Tick.result>

// get: with and without options, before and after a pipe
type Got = Effect.Effect<number, GetError<DivideByZero>, Backend.Backend>
expectType(AsyncResult.get(ratio)).is<Got>(true)
expectType(AsyncResult.get(ratio, { timeout: Duration.seconds(1) })).is<Got>(true)
expectType(AsyncResult.get(ratio, { timeout: undefined, pollInterval: "1 second" })).is<Got>(true)
expectType(ratio.pipe(AsyncResult.get)).is<Got>(true)
expectType(ratio.pipe(AsyncResult.get())).is<Got>(true)
expectType(ratio.pipe(AsyncResult.get({ timeout: "1 second" }))).is<Got>(true)
expectType(pipe(ratio, AsyncResult.get({ pollInterval: 10 }))).is<Got>(true)

// get: passed on without its argument
type DelayedGot = Effect.Effect<number, GetError<DivideByZero> | Task.EnqueueError, Store>
const delayed = Divide.delay({ dividend: 1, divisor: 2 })
expectType(delayed.pipe(Effect.flatMap(AsyncResult.get))).is<DelayedGot>(true)
expectType(delayed.pipe(Effect.flatMap(AsyncResult.get()))).is<DelayedGot>(true)
expectType(delayed.pipe(Effect.flatMap(AsyncResult.get({ timeout: "5 seconds" })))).is<DelayedGot>(true)
expectType(Effect.flatMap(delayed, AsyncResult.get)).is<DelayedGot>(true)
expectType(Effect.flatMap(delayed, (handle) => AsyncResult.get(handle, { timeout: 5000 }))).is<DelayedGot>(
  true
)
expectType(Effect.forEach([ratio, ratio], (handle) => AsyncResult.get(handle))).is<
  Effect.Effect<Array<number>, GetError<DivideByZero>, Backend.Backend>
>(true)
// @ts-expect-error `map` passes the index too, which is no option
void [ratio].map(AsyncResult.get)
expectType([ratio].map((handle) => AsyncResult.get(handle))).is<Array<Got>>(true)

// get: what it does not take
// @ts-expect-error a misspelt option
AsyncResult.get(ratio, { timeOut: "1 second" })
// @ts-expect-error a misspelt option, after a pipe
ratio.pipe(AsyncResult.get({ timeOut: "1 second" }))
// @ts-expect-error a task, not a handle
AsyncResult.get(Divide)
// @ts-expect-error no duration
AsyncResult.get(ratio, { timeout: "soon" })

// exit: the task's failure is a value
type Exited = Effect.Effect<
  Exit.Exit<number, TaskFailed.TaskFailed<DivideByZero>>,
  WaitError,
  Backend.Backend
>
expectType(AsyncResult.exit(ratio)).is<Exited>(true)
expectType(AsyncResult.exit(ratio, { timeout: "1 second" })).is<Exited>(true)
expectType(ratio.pipe(AsyncResult.exit)).is<Exited>(true)
expectType(ratio.pipe(AsyncResult.exit({ pollInterval: "1 second" }))).is<Exited>(true)
// @ts-expect-error a misspelt option
AsyncResult.exit(ratio, { interval: "1 second" })

// a task without success and error: `TaskFailed<never>` still says that it died, was cancelled, …
expectType(AsyncResult.get(ticked)).is<Effect.Effect<void, GetError<never>, Backend.Backend>>(true)

// make: by id alone, by the task, by schemas
expectType(Divide.result("0190")).is<AsyncResult.AsyncResult<number, DivideByZero, never, never>>(true)
expectType(AsyncResult.make("0190")).is<
  AsyncResult.AsyncResult<Schema.Json, Schema.Json, never, Schema.Json>
>(true)
expectType(AsyncResult.get(AsyncResult.make("0190"))).is<
  Effect.Effect<Schema.Json, GetError<Schema.Json>, Backend.Backend>
>(true)
expectType(AsyncResult.make("0190", { success: Schema.Date })).is<
  AsyncResult.AsyncResult<Date, never, never, never>
>(true)
expectType(AsyncResult.make("0190", { success: Schema.Date, error: DivideByZero, progress: Schema.Int })).is<
  AsyncResult.AsyncResult<Date, DivideByZero, never, number>
>(true)
expectType(AsyncResult.make("0190", { success: Import.successSchema, progress: Reveal.successSchema })).is<
  AsyncResult.AsyncResult<number, never, Opener, string>
>(true)
// @ts-expect-error without its success schema
AsyncResult.make("0190", { error: DivideByZero })

// reading needs the services of decoding, and no others
const secret = Reveal.result("0190")
expectType(AsyncResult.get(secret)).is<Effect.Effect<string, GetError<never>, Backend.Backend | Opener>>(true)
expectType(AsyncResult.exit(secret)).is<
  Effect.Effect<Exit.Exit<string, TaskFailed.TaskFailed<never>>, WaitError, Backend.Backend | Opener>
>(true)
expectType(AsyncResult.poll(secret)).is<
  Effect.Effect<
    Option.Option<TaskResult.TaskResult<string, never, never>>,
    ReadError,
    Backend.Backend | Opener
  >
>(true)
expectType(AsyncResult.state(secret)).is<Effect.Effect<TaskState, ReadError, Backend.Backend>>(true)

// handles widen, and do not narrow
fits<AsyncResult.Any>(ratio)
fits<AsyncResult.AsyncResult<unknown, unknown>>(ratio)
declare const wider: AsyncResult.AsyncResult<number | string, DivideByZero | NoSuchAddress>
fits<typeof wider>(ratio)
// @ts-expect-error what it gives may be a string
fits<typeof ratio>(wider)
declare const anything: unknown
if (AsyncResult.isAsyncResult(anything)) expectType(anything).is<AsyncResult.Any>(true)
typeOf<AsyncResult.Success<typeof mailed>>().is<Date>(true)
typeOf<AsyncResult.Error<typeof mailed>>().is<NoSuchAddress>(true)
typeOf<AsyncResult.Services<ReturnType<typeof Reveal.result>>>().is<Opener>(true)

// poll, state, ready, successful and failed
expectType(AsyncResult.poll(ratio)).is<
  Effect.Effect<
    Option.Option<TaskResult.TaskResult<number, DivideByZero, unknown>>,
    ReadError,
    Backend.Backend
  >
>(true)
expectType(AsyncResult.poll(ratio).pipe(Effect.map(Option.flatMap((read) => read.exit)))).is<
  Effect.Effect<
    Option.Option<Exit.Exit<number, TaskFailed.TaskFailed<DivideByZero>>>,
    ReadError,
    Backend.Backend
  >
>(true)
expectType(ratio.pipe(AsyncResult.state)).is<Effect.Effect<TaskState, ReadError, Backend.Backend>>(true)
type Asked = Effect.Effect<boolean, ReadError, Backend.Backend>
expectType(AsyncResult.ready(ratio)).is<Asked>(true)
expectType(AsyncResult.failed(ratio)).is<Asked>(true)
expectType(AsyncResult.successful(ratio)).is<Asked>(true)
expectType(AsyncResult.cancel(ratio)).is<Effect.Effect<AsyncResult.CancelAnswer, ReadError, Backend.Backend>>(
  true
)
expectType(AsyncResult.forget(ratio)).is<Effect.Effect<void, ReadError, Backend.Backend>>(true)
typeOf<AsyncResult.CancelAnswer>().is<"Cancelled" | "Requested" | "AlreadyDone" | "Unknown">(true)
expectType(TaskState).is<Schema.Literals<readonly ["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"]>>(
  true
)
declare const result: TaskResult.TaskResult<number, DivideByZero, { readonly done: number }>
expectType(result.state).is<TaskState>(true)
expectType(result.attempts).is<number>(true)
expectType(result.worker).is<Option.Option<string>>(true)
expectType(result.progress).is<Option.Option<{ readonly done: number }>>(true)
expectType(result.enqueuedAt).is<Option.Option<DateTime.Utc>>(true)
expectType(result.queue).is<Option.Option<string>>(true)
expectType(result.dueAt).is<Option.Option<DateTime.Utc>>(true)
expectType(result.history).is<ReadonlyArray<TaskResult.FailedAttempt>>(true)
typeOf<TaskResult.FailedAttempt["reason"]>().is<"Failed" | "Died" | "TimedOut" | "RetryRequested">(true)
typeOf<TaskResult.FailedAttempt["stack"]>().is<Option.Option<string>>(true)
expectType(TaskResult.schema(Divide)).is<
  Schema.Codec<TaskResult.TaskResult<number, DivideByZero, never>, Schema.Json>
>(true)
// decoding needs the services of the schemas
const revealed = TaskResult.schema(Reveal)
typeOf<(typeof revealed)["DecodingServices"]>().is<Opener>(true)
fits<Schema.Codec<TaskResult.TaskResult<string>, Schema.Json, Opener, unknown>>(revealed)
// @ts-expect-error a handle has no schemas
TaskResult.schema(ratio)
expectType(result.startedAt).is<typeof result.finishedAt>(true)
typeOf<TaskState>().is<"PENDING" | "STARTED" | "RETRY" | "SUCCESS" | "FAILURE">(true)

// changes: the progress is the task's
type Steps = { readonly done: number; readonly total: number }
expectType(AsyncResult.changes(Import.result("0190"))).is<
  Stream.Stream<TaskResult.TaskResult<number, never, Steps>, ReadError, Backend.Backend>
>(true)
const watched = Import.delay({ url: "…" }).pipe(Effect.map(AsyncResult.changes), Stream.unwrap)
expectType(watched).is<
  Stream.Stream<TaskResult.TaskResult<number, never, Steps>, ReadError | Task.EnqueueError, Store>
>(true)
const shares = watched.pipe(
  Stream.filterMap(({ progress }) =>
    Option.isSome(progress) ? Result.succeed(progress.value.done / progress.value.total) : Result.failVoid
  )
)
typeOf<Stream.Success<typeof shares>>().is<number>(true)
expectType(AsyncResult.changes(ticked)).is<
  Stream.Stream<TaskResult.TaskResult<void, never, never>, ReadError, Backend.Backend>
>(true)
expectType(AsyncResult.changes(secret)).is<
  Stream.Stream<TaskResult.TaskResult<string, never, never>, ReadError, Backend.Backend | Opener>
>(true)

// all: the shape of the argument
expectType(AsyncResult.all([ratio, mailed, ticked], { timeout: "1 minute" })).is<
  Effect.Effect<[number, Date, void], GetError<DivideByZero | NoSuchAddress>, Backend.Backend>
>(true)
expectType(AsyncResult.all({ ratio, mailed })).is<
  Effect.Effect<{ ratio: number; mailed: Date }, GetError<DivideByZero | NoSuchAddress>, Backend.Backend>
>(true)
expectType(AsyncResult.all(new Set([ratio]))).is<
  Effect.Effect<Array<number>, GetError<DivideByZero>, Backend.Backend>
>(true)
expectType(AsyncResult.all([])).is<Effect.Effect<[], GetError<never>, Backend.Backend>>(true)
type AllGot = Effect.Effect<Array<number>, GetError<DivideByZero> | Task.PartialEnqueue, Store>
const bulk = Divide.delayAll([{ dividend: 1, divisor: 2 }])
expectType(bulk.pipe(Effect.flatMap(AsyncResult.all))).is<AllGot>(true)
expectType(
  bulk.pipe(Effect.flatMap((handles) => AsyncResult.all(handles, { timeout: "1 minute" })))
).is<AllGot>(true)
expectType(AsyncResult.all([secret, ratio])).is<
  Effect.Effect<[string, number], GetError<DivideByZero>, Backend.Backend | Opener>
>(true)
const someError = AsyncResult.all([ratio, mailed]).pipe(
  Effect.catchReason("TaskFailed", "Failed", ({ error }) => Effect.succeed(error._tag))
)
typeOf<Success<typeof someError>>().is<[number, Date] | "DivideByZero" | "NoSuchAddress">(true)
// @ts-expect-error a number among the handles
AsyncResult.all([ratio, 1])
// @ts-expect-error a misspelt option
AsyncResult.all([ratio], { timeOut: "1 second" })

// race and stream
expectType(AsyncResult.race([ratio, mailed])).is<
  Effect.Effect<number | Date, GetError<DivideByZero | NoSuchAddress>, Backend.Backend>
>(true)
expectType(AsyncResult.stream([ratio, mailed], { timeout: "1 minute" })).is<
  Stream.Stream<
    readonly [
      taskId: string,
      exit: Exit.Exit<number | Date, TaskFailed.TaskFailed<DivideByZero | NoSuchAddress>>
    ],
    WaitError,
    Backend.Backend
  >
>(true)
const logged = AsyncResult.stream(new Set([ratio])).pipe(
  Stream.runForEach(([taskId, exit]) =>
    Exit.match(exit, {
      onSuccess: (value) => Effect.log(taskId, value.toFixed(2)),
      onFailure: (cause) => Effect.logError(taskId, cause)
    })
  )
)
expectType(logged).is<Effect.Effect<void, WaitError, Backend.Backend>>(true)
// @ts-expect-error a task, not a handle
AsyncResult.race([Divide])
// @ts-expect-error an id, not a handle
AsyncResult.stream(["0190"])

// ReadRetry is ambient: it is set for a whole program and is no requirement
expectType(AsyncResult.ReadRetry).is<Context.Reference<Schedule.Schedule<unknown, Backend.BackendError>>>(
  true
)
expectType(
  AsyncResult.get(ratio).pipe(Effect.provideService(AsyncResult.ReadRetry, Schedule.recurs(3)))
).is<Got>(true)
typeOf<Failure<Got>>().is<GetError<DivideByZero>>(true)

// a handle that may be undefined is refused everywhere
declare const maybe: AsyncResult.AsyncResult<number, DivideByZero> | undefined
// @ts-expect-error no handle
AsyncResult.get(maybe)
// @ts-expect-error no handle
AsyncResult.get(maybe, { timeout: "1 second" })
// @ts-expect-error no handle
pipe(maybe, AsyncResult.get)
// @ts-expect-error no handle
pipe(maybe, AsyncResult.get({ timeout: "1 second" }))
// @ts-expect-error no handle
void Effect.flatMap(Effect.succeed(maybe), AsyncResult.get)
// @ts-expect-error no handle
AsyncResult.get(undefined)
// @ts-expect-error no handle
AsyncResult.get(null)
// @ts-expect-error no handle
AsyncResult.exit(maybe)
// @ts-expect-error no handle
AsyncResult.exit(maybe, { timeout: "1 second" })
// @ts-expect-error no handle
pipe(maybe, AsyncResult.exit)
// @ts-expect-error no handle
pipe(maybe, AsyncResult.exit())
// @ts-expect-error no handle
AsyncResult.poll(maybe)
// @ts-expect-error no handle
AsyncResult.state(maybe)
// @ts-expect-error no handle
AsyncResult.ready(maybe)
// @ts-expect-error no handle
AsyncResult.failed(maybe)
// @ts-expect-error no handle
AsyncResult.successful(maybe)
// @ts-expect-error no handle
AsyncResult.cancel(maybe)
// @ts-expect-error no handle
AsyncResult.forget(maybe)
// @ts-expect-error no handle
AsyncResult.changes(maybe)
// @ts-expect-error no handle among the handles
AsyncResult.all([ratio, maybe])
// @ts-expect-error no handle among the handles
AsyncResult.all({ ratio, maybe })
// @ts-expect-error no handles
AsyncResult.all(maybe)
// @ts-expect-error no handle among the handles
AsyncResult.race([ratio, maybe])
// @ts-expect-error no handle among the handles
AsyncResult.stream(new Set([ratio, maybe]))

// options that may be undefined are accepted behind a handle
declare const maybeOptions: AsyncResult.GetOptions | undefined
expectType(AsyncResult.get(ratio, maybeOptions)).is<Got>(true)
expectType(AsyncResult.exit(ratio, maybeOptions)).is<Exited>(true)
