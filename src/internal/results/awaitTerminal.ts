/**
 * Waits for the ends of tasks: `get`, `exit`, `all`, `race` and `stream` are all built on it.
 *
 * Over a backend with hints a waiter subscribes to the process's reads; over one without, the ids are polled on
 * `Schedule.spaced`. Either way every id is read at least once, and once more at the deadline.
 */
import { Cause, Context, Duration, Effect, Exit, Option, Schedule } from "effect"
import { Backend } from "../../Backend.ts"
import type { TaskRecord } from "../../BackendDriver.ts"
import { type BackendError, isRetryable, type ReadError } from "../../StoreError.ts"
import { isTerminal, type TaskState } from "../../TaskState.ts"
import { backoff } from "../backoff.ts"
import { Deadline, type Deadlines, deadlinesOf } from "../concurrency/Deadlines.ts"
import type { BackendService } from "../driver/BackendService.ts"
import type { Subscriptions, Subscriber } from "../driver/Subscriptions.ts"
import { CurrentRun } from "../task/CurrentRun.ts"
import { ReadRetry } from "./ReadRetry.ts"

/** A task that has ended, or whose record was removed during the wait (`forgotten`). */
export interface TerminalRecord {
  readonly record: TaskRecord
  readonly forgotten: boolean
}

/** What was known of a task when the time was up. */
export interface TimeoutInfo {
  readonly taskId: string
  readonly state: TaskState
  readonly cause: BackendError | undefined
}

/** Options of a wait. */
export interface Options<E> {
  readonly ids: ReadonlyArray<string>
  readonly timeout: Duration.Duration | undefined
  readonly pollInterval: Duration.Duration | undefined
  readonly onTimeout: (info: TimeoutInfo) => E
  /** Called once for each task as it ends. Returns `true` to end the wait. */
  readonly onTerminal: (ended: TerminalRecord) => boolean
}

/** How often the ids are polled where the backend gives no hints and the caller sets no interval. */
export const DEFAULT_POLL_INTERVAL = Duration.millis(100)
/** How long the read at the deadline may take. */
const FINAL_READ_TIMEOUT = Duration.seconds(1)

/** The tasks of one wait that have not ended. */
class PendingTasks<E> {
  /** The last record that was read of each. */
  readonly open = new Map<string, TaskRecord | undefined>()
  lastError: BackendError | undefined
  done: boolean
  readonly options: Options<E>

  constructor(options: Options<E>) {
    this.options = options
    for (const id of options.ids) this.open.set(id, undefined)
    this.done = this.open.size === 0
  }

  get ids(): ReadonlyArray<string> {
    const { ids } = this.options
    return this.open.size === ids.length ? ids : [...this.open.keys()]
  }

  /** Applies one read. */
  onRecord(id: string, record: TaskRecord | undefined): void {
    if (this.done || !this.open.has(id)) return
    const before = this.open.get(id)
    const forgotten = record === undefined ? before !== undefined : record.ended === "Forgotten"
    if (!forgotten && (record === undefined || !isTerminal(record.state))) {
      this.open.set(id, record)
      return
    }
    this.open.delete(id)
    this.done = this.options.onTerminal({ record: (record ?? before)!, forgotten }) || this.open.size === 0
  }

  /** Keeps the error of a failed read, for the timeout. */
  onReadFailed(answer: Exit.Exit<unknown, ReadError>): void {
    const error = Exit.findErrorOption(answer)
    if (Option.isSome(error) && error.value._tag === "BackendError") this.lastError = error.value
  }

  timeoutInfo(): TimeoutInfo {
    const [taskId] = this.open.keys()
    return {
      taskId: taskId!,
      state: this.open.get(taskId!)?.state ?? "PENDING",
      cause: this.lastError
    }
  }
}

/** Reads all pending tasks, each with its own answer. */
const readPending = <E>(backend: BackendService, pending: PendingTasks<E>): Effect.Effect<void, ReadError> =>
  Effect.suspend(() => {
    const { ids } = pending
    return Effect.flatMap(backend.read.many(ids), (answers) => {
      let failed: Exit.Exit<never, ReadError> | undefined
      for (let i = 0; i < ids.length; i++) {
        const answer = answers[i]!
        if (Exit.isSuccess(answer)) pending.onRecord(ids[i]!, answer.value)
        else failed = answer as Exit.Exit<never, ReadError>
      }
      if (failed === undefined || pending.done) return Effect.void
      pending.onReadFailed(failed)
      return failed
    })
  })

/** Polls at a fixed interval. */
const poll = <E>(
  backend: BackendService,
  pending: PendingTasks<E>,
  interval: Duration.Duration,
  retry: Schedule.Schedule<unknown, ReadError>
): Effect.Effect<void, ReadError> =>
  readPending(backend, pending).pipe(
    Effect.retry({ schedule: retry, while: isRetryable }),
    Effect.repeat({ schedule: Schedule.spaced(interval), until: () => pending.done })
  )

const timeoutUnlessDone = <E>(pending: PendingTasks<E>): Effect.Effect<void, E> =>
  pending.done ? Effect.void : Effect.fail(pending.options.onTimeout(pending.timeoutInfo()))

/** A waiting fiber, subscribed to the reads of the process, which retry by themselves. */
class Waiter<E> extends Deadline implements Subscriber<ReadError> {
  readonly waitsFor = "end"
  private readonly pending: PendingTasks<E>
  private readonly backend: BackendService
  /** Whether the waiter waits through retryable errors. */
  private readonly toleratesErrors: boolean
  private readonly resume: (answer: Effect.Effect<void, E | ReadError>) => void
  private readonly unsubscribe: () => void
  private deadlines: Deadlines | undefined
  /** Reads at the deadline whose answers have not come. */
  private unanswered = 0

  constructor(
    pending: PendingTasks<E>,
    backend: BackendService,
    subscriptions: Subscriptions<ReadError>,
    toleratesErrors: boolean,
    resume: (answer: Effect.Effect<void, E | ReadError>) => void
  ) {
    super()
    this.pending = pending
    this.backend = backend
    this.toleratesErrors = toleratesErrors
    this.resume = resume
    this.unsubscribe = subscriptions.subscribe(pending.ids, this)
  }

  /** Bounds the wait: at the deadline the pending tasks are read once more. */
  until(deadlines: Deadlines, timeout: Duration.Duration): void {
    this.deadlines = deadlines
    deadlines.set(this, Duration.toMillis(timeout))
  }

  onRecord(id: string, record: TaskRecord | undefined): void {
    this.pending.onRecord(id, record)
    if (this.pending.done) this.stop(Effect.void)
  }

  onError(error: ReadError): void {
    if (error._tag === "BackendError") this.pending.lastError = error
    if (!this.toleratesErrors || !isRetryable(error)) this.stop(Effect.fail(error))
  }

  // without fibers, since all waiters that share a deadline do this at once
  onDeadline(): void {
    if (this.unanswered > 0) return this.stop(timeoutUnlessDone(this.pending))
    this.unsubscribe()
    const { ids } = this.pending
    this.unanswered = ids.length
    this.deadlines?.set(this, Duration.toMillis(FINAL_READ_TIMEOUT))
    for (const id of ids) this.backend.read.request(id)((answer) => this.onFinalRead(id, answer))
  }

  /** Ends the subscription. */
  end(): void {
    this.unanswered = 0
    this.deadlines?.clear(this)
    this.unsubscribe()
  }

  private onFinalRead(id: string, answer: Exit.Exit<TaskRecord | undefined, ReadError>): void {
    if (this.unanswered === 0) return
    this.unanswered--
    if (Exit.isSuccess(answer)) this.pending.onRecord(id, answer.value)
    else if (Exit.hasInterrupts(answer)) return this.stop(answer)
    else this.pending.onReadFailed(answer)
    if (this.unanswered === 0 || this.pending.done) this.stop(timeoutUnlessDone(this.pending))
  }

  private stop(answer: Effect.Effect<void, E | ReadError>): void {
    this.end()
    this.resume(answer)
  }
}

/** Waits for hinted reads until the wait is done or fails; with `deadlines`, until the read at the deadline at the latest. */
const awaitHints = <E>(
  pending: PendingTasks<E>,
  backend: BackendService,
  subscriptions: Subscriptions<ReadError>,
  toleratesErrors: boolean,
  deadlines?: Deadlines
): Effect.Effect<void, E | ReadError> =>
  Effect.callback((resume) => {
    const waiter = new Waiter(pending, backend, subscriptions, toleratesErrors, resume)
    const { timeout } = pending.options
    if (deadlines !== undefined && timeout !== undefined) waiter.until(deadlines, timeout)
    return Effect.sync(() => waiter.end())
  })

/** Waits by hints and polls as the options say, without a deadline. */
const awaitUnbounded = <E>(
  pending: PendingTasks<E>,
  backend: BackendService,
  retry: Schedule.Schedule<unknown, ReadError>
): Effect.Effect<void, E | ReadError> => {
  const { subscriptions } = backend
  const { pollInterval } = pending.options
  if (subscriptions === undefined) return poll(backend, pending, pollInterval ?? DEFAULT_POLL_INTERVAL, retry)
  // a schedule that the caller provides decides how often a failed read is retried
  const hinted =
    retry === backoff
      ? awaitHints(pending, backend, subscriptions, true)
      : Effect.retry(awaitHints(pending, backend, subscriptions, false), {
          schedule: retry as Schedule.Schedule<unknown, E | ReadError>,
          while: (error) => isRetryable(error as ReadError)
        })
  return pollInterval === undefined
    ? hinted
    : Effect.raceFirst(hinted, Effect.delay(poll(backend, pending, pollInterval, retry), pollInterval))
}

/** Reads once more at the deadline: a result that is there then is returned. */
const finalRead = <E>(backend: BackendService, pending: PendingTasks<E>): Effect.Effect<void, E> =>
  readPending(backend, pending).pipe(
    Effect.timeoutOption(FINAL_READ_TIMEOUT),
    Effect.catchCause((cause) =>
      Cause.hasInterrupts(cause) ? Effect.failCause(cause as Cause.Cause<never>) : Effect.void
    ),
    Effect.andThen(Effect.suspend(() => timeoutUnlessDone(pending)))
  )

/** Waits until `onTerminal` returns `true`, or every task has ended. */
export const awaitTerminal = <E>(options: Options<E>): Effect.Effect<void, E | ReadError, Backend> =>
  Effect.withFiber((fiber) => {
    const backend = Context.getUnsafe(fiber.context, Backend)
    const run = fiber.getRef(CurrentRun)
    const pending = new PendingTasks(options)
    if (pending.done) return Effect.void
    // fails with BackendNotConfigured
    if (!backend.configured) return readPending(backend, pending)

    const { subscriptions } = backend
    const { pollInterval, timeout } = options
    const retry = fiber.getRef(ReadRetry) as Schedule.Schedule<unknown, ReadError>
    const bounded =
      subscriptions !== undefined && pollInterval === undefined && retry === backoff
        ? // the common case costs one fiber and one subscription
          awaitHints(pending, backend, subscriptions, true, deadlinesOf(fiber))
        : timeout === undefined
          ? awaitUnbounded(pending, backend, retry)
          : Effect.timeoutOrElse(awaitUnbounded(pending, backend, retry), {
              duration: timeout,
              orElse: () => finalRead(backend, pending)
            })
    return run === undefined ? bounded : run.withoutSlot(bounded)
  })
