/**
 * The one way to wait for tasks: `get`, `exit`, `all`, `race` and `stream` are all made of it.
 *
 * Over a backend with hints the process's registry tells of every read; over one without, the ids are polled on
 * `Schedule.spaced`. Either way they are read at least once, and once more at the deadline.
 */
import { Cause, Context, Duration, Effect, Exit, Option, Schedule } from "effect"
import { Backend, type BackendError, type Facade, type ReadError } from "../Backend.ts"
import type { TaskRecord } from "../BackendDriver.ts"
import { isTerminal, type TaskState } from "../TaskState.ts"
import { backoff } from "./backoff.ts"
import { CurrentRun } from "./currentRun.ts"

/** How a read that failed is tried again. */
export const ReadRetry: Context.Reference<Schedule.Schedule<unknown, BackendError>> = Context.Reference<
  Schedule.Schedule<unknown, BackendError>
>("chicory/AsyncResult/ReadRetry", { defaultValue: () => backoff })

/** A task that ended, or whose record went away (`forgotten`) while somebody waited. */
export interface Ended {
  readonly record: TaskRecord
  readonly forgotten: boolean
}

/** Why waiting was given up. */
export interface Overdue {
  readonly taskId: string
  readonly state: TaskState
  readonly cause: BackendError | undefined
}

/** How to wait. */
export interface Options<E> {
  readonly ids: ReadonlyArray<string>
  readonly timeout: Duration.Duration | undefined
  readonly pollInterval: Duration.Duration | undefined
  readonly onOverdue: (overdue: Overdue) => E
  /** Told of each task once, as it ends; `true`: that is enough. */
  readonly onEnd: (ended: Ended) => boolean
}

const defaultPollInterval = Duration.millis(100)
const lastRead = Duration.seconds(1)

/** The tasks that are still awaited, and what was last seen of them. */
class Awaited<E> {
  readonly open: Set<string>
  readonly seen = new Map<string, TaskRecord>()
  lastError: BackendError | undefined
  enough = false
  readonly options: Options<E>

  constructor(options: Options<E>) {
    this.options = options
    this.open = new Set(options.ids)
    this.enough = this.open.size === 0
  }

  /** Takes in one read. */
  saw(id: string, record: TaskRecord | undefined): void {
    if (this.enough || !this.open.has(id)) return
    const before = this.seen.get(id)
    if (record !== undefined) this.seen.set(id, record)
    const forgotten = record === undefined ? before !== undefined : record.ended === "Forgotten"
    if (!forgotten && (record === undefined || !isTerminal(record.state))) return
    this.open.delete(id)
    this.enough = this.options.onEnd({ record: (record ?? before)!, forgotten }) || this.open.size === 0
  }

  overdue(): Overdue {
    const [taskId] = this.open
    return {
      taskId: taskId!,
      state: this.seen.get(taskId!)?.state ?? "PENDING",
      cause: this.lastError
    }
  }
}

/** Reads everything that is still awaited, each id with its own answer. */
const readOpen = <E>(backend: Facade, awaited: Awaited<E>): Effect.Effect<void, ReadError> =>
  Effect.suspend(() => {
    const ids = [...awaited.open]
    return Effect.flatMap(backend.read.many(ids), (answers) => {
      let failed: Exit.Exit<never, ReadError> | undefined
      for (let i = 0; i < ids.length; i++) {
        const answer = answers[i]!
        if (Exit.isSuccess(answer)) awaited.saw(ids[i]!, answer.value)
        else failed = answer as Exit.Exit<never, ReadError>
      }
      if (failed === undefined || awaited.enough) return Effect.void
      const error = Exit.findErrorOption(failed)
      if (Option.isSome(error) && error.value._tag === "BackendError") awaited.lastError = error.value
      return failed
    })
  })

/** Whether an error may heal. */
export const isRetryable = (error: ReadError): boolean => error._tag === "BackendError" && error.retryable

/** Polls at a fixed spacing. */
const poll = <E>(
  backend: Facade,
  awaited: Awaited<E>,
  interval: Duration.Duration
): Effect.Effect<void, ReadError> =>
  Effect.flatMap(ReadRetry, (schedule) =>
    readOpen(backend, awaited).pipe(
      Effect.retry({ schedule: schedule as Schedule.Schedule<unknown, ReadError>, while: isRetryable }),
      Effect.repeat({ schedule: Schedule.spaced(interval), until: () => awaited.enough })
    )
  )

/** Listens to the process's registry, which reads again what failed. */
const listen = <E>(
  interest: NonNullable<Facade["interest"]>,
  awaited: Awaited<E>
): Effect.Effect<void, ReadError> =>
  Effect.flatMap(ReadRetry, (schedule) => {
    const once = Effect.callback<void, ReadError>((resume) => {
      const leave = interest.listen(awaited.open, {
        onRecord: (id, record) => {
          awaited.saw(id, record)
          if (awaited.enough) stop(Effect.void)
        },
        onError: (error) => {
          if (error._tag === "BackendError") awaited.lastError = error
          if (!isRetryable(error) || schedule !== backoff) stop(Effect.fail(error))
        }
      })
      const stop = (answer: Effect.Effect<void, ReadError>) => {
        leave()
        resume(answer)
      }
      return Effect.sync(leave)
    })
    // with a schedule of the caller's own it says how often a failed read is borne
    return schedule === backoff
      ? once
      : Effect.retry(once, {
          schedule: schedule as Schedule.Schedule<unknown, ReadError>,
          while: isRetryable
        })
  })

/** Waits until `onEnd` has had enough, or every task has ended. */
export const awaitEnds = <E>(options: Options<E>): Effect.Effect<void, E | ReadError, Backend> =>
  Effect.withFiber((fiber) => {
    const backend = Context.getUnsafe(fiber.context, Backend)
    const run = fiber.getRef(CurrentRun)
    const awaited = new Awaited(options)
    if (awaited.enough) return Effect.void
    // a first read tells at once where there is no backend at all
    if (!backend.configured) return readOpen(backend, awaited)

    const interest = backend.interest
    const { pollInterval, timeout } = options
    const wait =
      interest === undefined
        ? poll(backend, awaited, pollInterval ?? defaultPollInterval)
        : pollInterval === undefined
          ? listen(interest, awaited)
          : Effect.raceFirst(
              listen(interest, awaited),
              Effect.delay(poll(backend, awaited, pollInterval), pollInterval)
            )
    const bounded =
      timeout === undefined
        ? wait
        : Effect.timeoutOrElse(wait, {
            duration: timeout,
            orElse: () => Effect.flatMap(atDeadline(backend, awaited), () => overdueUnlessEnough(awaited))
          })
    return run === undefined ? bounded : run.withoutSlot(bounded)
  })

/** A result that is there at the deadline is returned. */
const atDeadline = <E>(backend: Facade, awaited: Awaited<E>): Effect.Effect<void> =>
  readOpen(backend, awaited).pipe(
    Effect.timeoutOption(lastRead),
    Effect.catchCause((cause) =>
      Cause.hasInterrupts(cause) ? Effect.failCause(cause as Cause.Cause<never>) : Effect.void
    )
  )

const overdueUnlessEnough = <E>(awaited: Awaited<E>): Effect.Effect<void, E> =>
  awaited.enough ? Effect.void : Effect.fail(awaited.options.onOverdue(awaited.overdue()))
