/**
 * The one way to wait for tasks: `get`, `exit`, `all`, `race` and `stream` are all made of it.
 *
 * Over a backend with hints the process's registry tells of every read; over one without, the ids are polled on
 * `Schedule.spaced`. Either way they are read at least once, and once more at the deadline.
 */
import { Cause, Context, Duration, Effect, Exit, Option, Schedule } from "effect"
import { Backend } from "../../Backend.ts"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { BackendError, ReadError } from "../../StoreError.ts"
import { isTerminal, type TaskState } from "../../TaskState.ts"
import { backoff } from "../backoff.ts"
import { Deadline, type Deadlines, deadlinesOf } from "../concurrency/Deadlines.ts"
import type { BackendService } from "../driver/BackendService.ts"
import type { Subscriptions, Subscriber } from "../driver/Subscriptions.ts"
import { CurrentRun } from "../task/CurrentRun.ts"
import { ReadRetry } from "./ReadRetry.ts"

/** A task that ended, or whose record went away (`forgotten`) while somebody waited. */
export interface TerminalRecord {
  readonly record: TaskRecord
  readonly forgotten: boolean
}

/** Why waiting was given up. */
export interface TimeoutInfo {
  readonly taskId: string
  readonly state: TaskState
  readonly cause: BackendError | undefined
}

/** How to wait. */
export interface Options<E> {
  readonly ids: ReadonlyArray<string>
  readonly timeout: Duration.Duration | undefined
  readonly pollInterval: Duration.Duration | undefined
  readonly onTimeout: (overdue: TimeoutInfo) => E
  /** Told of each task once, as it ends; `true`: that is enough. */
  readonly onTerminal: (ended: TerminalRecord) => boolean
}

const defaultPollInterval = Duration.millis(100)
const lastRead = Duration.seconds(1)

/** The tasks that are still awaited. */
class PendingTasks<E> {
  /** What was last seen of each. */
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

  /** Takes in one read. */
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

  /** Takes in a read that failed. */
  failed(answer: Exit.Exit<unknown, ReadError>): void {
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

/** Reads everything that is still awaited, each id with its own answer. */
const readPending = <E>(backend: BackendService, awaited: PendingTasks<E>): Effect.Effect<void, ReadError> =>
  Effect.suspend(() => {
    const { ids } = awaited
    return Effect.flatMap(backend.read.many(ids), (answers) => {
      let failed: Exit.Exit<never, ReadError> | undefined
      for (let i = 0; i < ids.length; i++) {
        const answer = answers[i]!
        if (Exit.isSuccess(answer)) awaited.onRecord(ids[i]!, answer.value)
        else failed = answer as Exit.Exit<never, ReadError>
      }
      if (failed === undefined || awaited.done) return Effect.void
      awaited.failed(failed)
      return failed
    })
  })

/** Whether an error may heal. */
export const isRetryable = (error: ReadError): boolean => error._tag === "BackendError" && error.retryable

/** Polls at a fixed spacing. */
const poll = <E>(
  backend: BackendService,
  awaited: PendingTasks<E>,
  interval: Duration.Duration,
  retry: Schedule.Schedule<unknown, ReadError>
): Effect.Effect<void, ReadError> =>
  readPending(backend, awaited).pipe(
    Effect.retry({ schedule: retry, while: isRetryable }),
    Effect.repeat({ schedule: Schedule.spaced(interval), until: () => awaited.done })
  )

const timeoutUnlessDone = <E>(awaited: PendingTasks<E>): Effect.Effect<void, E> =>
  awaited.done ? Effect.void : Effect.fail(awaited.options.onTimeout(awaited.timeoutInfo()))

/** A fiber that listens to the process's registry, which reads again what failed. */
class Waiter<E> extends Deadline implements Subscriber<ReadError> {
  readonly waitsFor = "end"
  private readonly awaited: PendingTasks<E>
  private readonly backend: BackendService
  /** Whether an error that may heal is borne. */
  private readonly patient: boolean
  private readonly resume: (answer: Effect.Effect<void, E | ReadError>) => void
  private readonly leave: () => void
  private deadlines: Deadlines | undefined
  /** Of the reads at the deadline those whose answer has not come. */
  private missing = 0

  constructor(
    awaited: PendingTasks<E>,
    backend: BackendService,
    subscriptions: Subscriptions<ReadError>,
    patient: boolean,
    resume: (answer: Effect.Effect<void, E | ReadError>) => void
  ) {
    super()
    this.awaited = awaited
    this.backend = backend
    this.patient = patient
    this.resume = resume
    this.leave = subscriptions.subscribe(awaited.ids, this)
  }

  /** Bounds it: at the deadline there is a last read, and then it is overdue. */
  until(deadlines: Deadlines, timeout: Duration.Duration): void {
    this.deadlines = deadlines
    deadlines.set(this, Duration.toMillis(timeout))
  }

  onRecord(id: string, record: TaskRecord | undefined): void {
    this.awaited.onRecord(id, record)
    if (this.awaited.done) this.stop(Effect.void)
  }

  onError(error: ReadError): void {
    if (error._tag === "BackendError") this.awaited.lastError = error
    if (!this.patient || !isRetryable(error)) this.stop(Effect.fail(error))
  }

  // asks without a fiber of its own, since those who share a deadline do all of this at once
  onDeadline(): void {
    if (this.missing > 0) return this.stop(timeoutUnlessDone(this.awaited))
    this.leave()
    const { ids } = this.awaited
    this.missing = ids.length
    this.deadlines?.set(this, Duration.toMillis(lastRead))
    for (const id of ids) this.backend.read.request(id)((answer) => this.onLastRead(id, answer))
  }

  /** Listens no more. */
  end(): void {
    this.missing = 0
    this.deadlines?.clear(this)
    this.leave()
  }

  private onLastRead(id: string, answer: Exit.Exit<TaskRecord | undefined, ReadError>): void {
    if (this.missing === 0) return
    this.missing--
    if (Exit.isSuccess(answer)) this.awaited.onRecord(id, answer.value)
    else if (Exit.hasInterrupts(answer)) return this.stop(answer)
    else this.awaited.failed(answer)
    if (this.missing === 0 || this.awaited.done) this.stop(timeoutUnlessDone(this.awaited))
  }

  private stop(answer: Effect.Effect<void, E | ReadError>): void {
    this.end()
    this.resume(answer)
  }
}

/** Listens until it is enough, or an error is not borne; with a timeout, until the last read at the deadline. */
const awaitHints = <E>(
  awaited: PendingTasks<E>,
  backend: BackendService,
  subscriptions: Subscriptions<ReadError>,
  patient: boolean,
  deadlines?: Deadlines
): Effect.Effect<void, E | ReadError> =>
  Effect.callback((resume) => {
    const listening = new Waiter(awaited, backend, subscriptions, patient, resume)
    const { timeout } = awaited.options
    if (deadlines !== undefined && timeout !== undefined) listening.until(deadlines, timeout)
    return Effect.sync(() => listening.end())
  })

/** Reads and listens as the options say, without a bound. */
const awaitUnbounded = <E>(
  awaited: PendingTasks<E>,
  backend: BackendService,
  retry: Schedule.Schedule<unknown, ReadError>
): Effect.Effect<void, E | ReadError> => {
  const { subscriptions } = backend
  const { pollInterval } = awaited.options
  if (subscriptions === undefined) return poll(backend, awaited, pollInterval ?? defaultPollInterval, retry)
  // with a schedule of the caller's own it says how often a failed read is borne
  const listening =
    retry === backoff
      ? awaitHints(awaited, backend, subscriptions, true)
      : Effect.retry(awaitHints(awaited, backend, subscriptions, false), {
          schedule: retry as Schedule.Schedule<unknown, E | ReadError>,
          while: (error) => isRetryable(error as ReadError)
        })
  return pollInterval === undefined
    ? listening
    : Effect.raceFirst(listening, Effect.delay(poll(backend, awaited, pollInterval, retry), pollInterval))
}

/** A result that is there at the deadline is returned. */
const finalRead = <E>(backend: BackendService, awaited: PendingTasks<E>): Effect.Effect<void, E> =>
  readPending(backend, awaited).pipe(
    Effect.timeoutOption(lastRead),
    Effect.catchCause((cause) =>
      Cause.hasInterrupts(cause) ? Effect.failCause(cause as Cause.Cause<never>) : Effect.void
    ),
    Effect.andThen(Effect.suspend(() => timeoutUnlessDone(awaited)))
  )

/** Waits until `onEnd` has had enough, or every task has ended. */
export const awaitTerminal = <E>(options: Options<E>): Effect.Effect<void, E | ReadError, Backend> =>
  Effect.withFiber((fiber) => {
    const backend = Context.getUnsafe(fiber.context, Backend)
    const run = fiber.getRef(CurrentRun)
    const awaited = new PendingTasks(options)
    if (awaited.done) return Effect.void
    // a first read tells at once where there is no backend at all
    if (!backend.configured) return readPending(backend, awaited)

    const { subscriptions } = backend
    const { pollInterval, timeout } = options
    const retry = fiber.getRef(ReadRetry) as Schedule.Schedule<unknown, ReadError>
    const bounded =
      subscriptions !== undefined && pollInterval === undefined && retry === backoff
        ? // what nearly everybody asks for costs one fiber and one registration
          awaitHints(awaited, backend, subscriptions, true, deadlinesOf(fiber))
        : timeout === undefined
          ? awaitUnbounded(awaited, backend, retry)
          : Effect.timeoutOrElse(awaitUnbounded(awaited, backend, retry), {
              duration: timeout,
              orElse: () => finalRead(backend, awaited)
            })
    return run === undefined ? bounded : run.withoutSlot(bounded)
  })
