/**
 * Waits for the end of one task, for `get` and `exit`.
 *
 * Over a backend with hints a waiter subscribes to the process's reads; over one without, the task is polled on
 * `Schedule.spaced`. Either way it is read at least once, and once more at the deadline.
 */
import { Cause, Context, Duration, Effect, Exit, Option, Schedule } from "effect"
import { Backend } from "../../Backend.ts"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { GetOptions } from "../../GetOptions.ts"
import { type BackendError, isRetryable, type ReadError } from "../../StoreError.ts"
import type { TimeoutError } from "../../TimeoutError.ts"
import { backoff } from "../backoff.ts"
import { Deadline, type Deadlines, deadlinesOf } from "../concurrency/Deadlines.ts"
import type { BackendService } from "../driver/BackendService.ts"
import type { Subscriber, Subscription, Subscriptions } from "../driver/Subscriptions.ts"
import { CurrentRun } from "../task/CurrentRun.ts"
import { ReadRetry } from "./ReadRetry.ts"
import { terminalOf, type TerminalRecord } from "./terminalRecord.ts"
import {
  deadlineAfter,
  DEFAULT_POLL_INTERVAL,
  FINAL_READ_TIMEOUT,
  isOneRead,
  readOptions,
  waitRefused,
  type WaitOptions
} from "./waitOptions.ts"

/** The task of one wait: what was read of it. */
class AwaitedTask {
  readonly id: string
  readonly options: WaitOptions
  /** `undefined` until the task has ended. */
  terminal: TerminalRecord | undefined
  private record: TaskRecord | undefined
  private lastError: BackendError | undefined

  constructor(id: string, options: WaitOptions) {
    this.id = id
    this.options = options
  }

  /** Applies one read. */
  onRecord(record: TaskRecord | undefined): void {
    this.terminal ??= terminalOf(this.record, record)
    this.record = record
  }

  /** Keeps the error of a failed read, for the timeout. */
  onError(error: ReadError): void {
    if (error._tag === "BackendError") this.lastError = error
  }

  /** Returns the end of the task, or fails, where the time is up. */
  endOrTimeout(): Effect.Effect<TerminalRecord, TimeoutError> {
    return this.terminal === undefined
      ? Effect.fail(this.options.toTimeoutError(this.id, this.record, this.lastError))
      : Effect.succeed(this.terminal)
  }
}

/** Reads the task once. */
const read = (backend: BackendService, task: AwaitedTask): Effect.Effect<void, ReadError> =>
  Effect.tapError(
    Effect.map(backend.read.one(task.id), (record) => task.onRecord(record)),
    (error) => Effect.sync(() => task.onError(error))
  )

/** Polls at a fixed interval. */
const poll = (
  backend: BackendService,
  task: AwaitedTask,
  interval: Duration.Duration,
  retry: Schedule.Schedule<unknown, ReadError>
): Effect.Effect<void, ReadError> =>
  read(backend, task).pipe(
    Effect.retry({ schedule: retry, while: isRetryable }),
    Effect.repeat({ schedule: Schedule.spaced(interval), until: () => task.terminal !== undefined })
  )

/** A waiting fiber, subscribed to the reads of the process, which retry by themselves. */
class Waiter extends Deadline implements Subscriber<ReadError> {
  readonly waitsFor = "end"
  private readonly task: AwaitedTask
  private readonly backend: BackendService
  /** Whether the waiter waits through retryable errors. */
  private readonly toleratesErrors: boolean
  private readonly resume: (answer: Effect.Effect<void, TimeoutError | ReadError>) => void
  private readonly subscription: Subscription
  private deadlines: Deadlines | undefined
  /** Whether the read at the deadline is on its way. */
  private isFinalRead = false

  constructor(
    task: AwaitedTask,
    backend: BackendService,
    subscriptions: Subscriptions<ReadError>,
    toleratesErrors: boolean,
    resume: (answer: Effect.Effect<void, TimeoutError | ReadError>) => void
  ) {
    super()
    this.task = task
    this.backend = backend
    this.toleratesErrors = toleratesErrors
    this.resume = resume
    this.subscription = subscriptions.subscribe([task.id], this)
  }

  /** Bounds the wait: at the deadline the task is read once more. */
  until(deadlines: Deadlines, timeout: Duration.Duration): void {
    this.deadlines = deadlines
    deadlines.set(this, Duration.toMillis(timeout))
  }

  onRecord(_: string, record: TaskRecord | undefined): void {
    this.task.onRecord(record)
    if (this.task.terminal !== undefined) this.stop(Effect.void)
  }

  onError(error: ReadError): void {
    this.task.onError(error)
    if (!this.toleratesErrors || !isRetryable(error)) this.stop(Effect.fail(error))
  }

  // without fibers, since all waiters that share a deadline do this at once
  onDeadline(): void {
    if (this.isFinalRead) return this.stop(Effect.asVoid(this.task.endOrTimeout()))
    this.subscription.end()
    this.isFinalRead = true
    this.deadlines?.set(this, Duration.toMillis(FINAL_READ_TIMEOUT))
    this.backend.read.request(this.task.id)((answer) => this.onFinalRead(answer))
  }

  /** Ends the wait. */
  end(): void {
    this.isFinalRead = false
    this.deadlines?.clear(this)
    this.subscription.end()
  }

  private onFinalRead(answer: Exit.Exit<TaskRecord | undefined, ReadError>): void {
    if (!this.isFinalRead) return
    if (Exit.isSuccess(answer)) this.task.onRecord(answer.value)
    else Option.map(Exit.findErrorOption(answer), (error) => this.task.onError(error))
    this.stop(Effect.asVoid(this.task.endOrTimeout()))
  }

  private stop(answer: Effect.Effect<void, TimeoutError | ReadError>): void {
    this.end()
    this.resume(answer)
  }
}

/** Waits for hinted reads until the task has ended; with `deadlines`, until the read at the deadline at the latest. */
const awaitHints = (
  task: AwaitedTask,
  backend: BackendService,
  subscriptions: Subscriptions<ReadError>,
  toleratesErrors: boolean,
  deadlines?: Deadlines
): Effect.Effect<void, TimeoutError | ReadError> =>
  Effect.callback((resume) => {
    const waiter = new Waiter(task, backend, subscriptions, toleratesErrors, resume)
    const { timeout } = task.options
    if (deadlines !== undefined && timeout !== undefined) waiter.until(deadlines, timeout)
    return Effect.sync(() => waiter.end())
  })

/** Waits by hints and polls as the options say, without a deadline. */
const awaitUnbounded = (
  task: AwaitedTask,
  backend: BackendService,
  retry: Schedule.Schedule<unknown, ReadError>
): Effect.Effect<void, TimeoutError | ReadError> => {
  const { subscriptions } = backend
  const { pollInterval } = task.options
  if (subscriptions === undefined) return poll(backend, task, pollInterval ?? DEFAULT_POLL_INTERVAL, retry)
  // a schedule that the caller provides decides how often a failed read is retried
  const hinted =
    retry === backoff
      ? awaitHints(task, backend, subscriptions, true)
      : Effect.retry(awaitHints(task, backend, subscriptions, false), {
          schedule: retry as Schedule.Schedule<unknown, TimeoutError | ReadError>,
          while: (error) => error._tag !== "TimeoutError" && isRetryable(error)
        })
  return pollInterval === undefined
    ? hinted
    : Effect.raceFirst(hinted, Effect.delay(poll(backend, task, pollInterval, retry), pollInterval))
}

/** Reads once more at the deadline: a result that is there then is returned. */
const finalRead = (backend: BackendService, task: AwaitedTask): Effect.Effect<void> =>
  read(backend, task).pipe(
    Effect.timeoutOption(FINAL_READ_TIMEOUT),
    Effect.catchCause((cause) =>
      Cause.hasInterrupts(cause) ? Effect.failCause(cause as Cause.Cause<never>) : Effect.void
    ),
    Effect.asVoid
  )

/** Waits until the task has ended. */
export const awaitTerminal = (
  id: string,
  options: GetOptions | undefined
): Effect.Effect<TerminalRecord, TimeoutError | ReadError, Backend> =>
  Effect.withFiber((fiber) => {
    const backend = Context.getUnsafe(fiber.context, Backend)
    const run = fiber.getRef(CurrentRun)
    const task = new AwaitedTask(id, readOptions(options))
    const ended = Effect.suspend(() => task.endOrTimeout())
    // fails with BackendNotConfigured
    if (!backend.configured) return Effect.andThen(read(backend, task), ended)
    if (backend.read.isUnbatched(fiber.context)) {
      const refused = Effect.fail(waitRefused(backend.name))
      return Effect.flatMap(
        read(backend, task),
        (): Effect.Effect<TerminalRecord, TimeoutError | ReadError> =>
          task.terminal === undefined && !isOneRead(task.options) ? refused : ended
      )
    }

    const { subscriptions } = backend
    const { pollInterval, timeout } = task.options
    const retry = fiber.getRef(ReadRetry) as Schedule.Schedule<unknown, ReadError>
    const bounded =
      subscriptions !== undefined && pollInterval === undefined && retry === backoff
        ? // the common case costs one fiber and one subscription
          awaitHints(task, backend, subscriptions, true, deadlinesOf(fiber))
        : timeout === undefined
          ? awaitUnbounded(task, backend, retry)
          : Effect.timeoutOrElse(awaitUnbounded(task, backend, retry), {
              duration: timeout,
              orElse: () => finalRead(backend, task)
            })
    const waited = run === undefined ? bounded : run.withoutSlot(bounded, deadlineAfter(fiber, timeout))
    return Effect.andThen(waited, ended)
  })
