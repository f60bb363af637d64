/**
 * Waits for the ends of several tasks in one wait, and emits their records as they arrive: `all`, `race` and `stream` are
 * built on it.
 *
 * Reads are made while the consumer waits for a record, and of few tasks at a time, because the result of a task may have
 * 4 MiB, and what is read beyond what the consumer has taken stays in memory. Hints of other tasks are kept as ids.
 */
import {
  Array as Arr,
  Cause,
  Clock,
  Context,
  Duration,
  Effect,
  Exit,
  Option,
  type Schedule,
  Stream
} from "effect"
import { Backend } from "../../Backend.ts"
import type { GetOptions } from "../../GetOptions.ts"
import type { ReadError } from "../../StoreError.ts"
import type { TimeoutError } from "../../TimeoutError.ts"
import type { BackendService } from "../driver/BackendService.ts"
import { monotonicMillis } from "../millis.ts"
import { CurrentRun } from "../task/CurrentRun.ts"
import { AwaitedTasks, type Needs } from "./AwaitedTasks.ts"
import { HintedReads } from "./HintedReads.ts"
import { PolledReads } from "./PolledReads.ts"
import { ReadRetry } from "./ReadRetry.ts"
import type { TerminalRecord } from "./terminalRecord.ts"
import { deadlineAfter, FINAL_READ_TIMEOUT, isOneRead, readOptions, waitRefused } from "./waitOptions.ts"

/** Reads every open task once more, after the deadline: a result that is there then is returned. */
const finalReads = (backend: BackendService, tasks: AwaitedTasks): Effect.Effect<void, TimeoutError> =>
  Effect.suspend(() => {
    if (tasks.hasNews) return Effect.void
    const ids = tasks.nextDue(tasks.lookahead.roomBeside(0))
    if (ids.length === 0) return Effect.fail(tasks.timeoutError())
    return Effect.flatMap(
      Effect.timeoutOption(backend.read.many(ids), FINAL_READ_TIMEOUT),
      (answers): Effect.Effect<void, TimeoutError> => {
        if (Option.isNone(answers)) return Effect.fail(tasks.timeoutError())
        tasks.onAnswers(ids, answers.value)
        for (const id of ids) tasks.due.delete(id)
        return finalReads(backend, tasks)
      }
    )
  })

/** Waits until there is news for the consumer; from the deadline on, for one more read of each task. */
const makeAwaitNews = (
  backend: BackendService,
  tasks: AwaitedTasks,
  reads: HintedReads | PolledReads,
  clock: Clock.Clock
): Effect.Effect<void, TimeoutError | ReadError> => {
  const { timeout } = tasks.options
  if (timeout === undefined) return reads.awaitNews
  const deadline = monotonicMillis(clock) + Duration.toMillis(timeout)
  let expired = false
  const expire = Effect.suspend(() => {
    expired = true
    reads.end()
    tasks.setAllDue()
    return finalReads(backend, tasks)
  })
  return Effect.suspend(() => {
    if (expired) return finalReads(backend, tasks)
    const left = deadline - monotonicMillis(clock)
    return left > 0 ? Effect.timeoutOrElse(reads.awaitNews, { duration: left, orElse: () => expire }) : expire
  })
}

/** Reads every task once, in the caller's transaction, and then refuses to wait for the others. */
const makeReadOnce = (
  backend: BackendService,
  tasks: AwaitedTasks
): Effect.Effect<void, TimeoutError | ReadError> => {
  tasks.setAllDue()
  const readOnce: Effect.Effect<void, TimeoutError | ReadError> = Effect.suspend(() => {
    if (tasks.hasNews) return Effect.void
    const ids = tasks.nextDue(tasks.lookahead.roomBeside(0))
    if (ids.length === 0) {
      return Effect.fail(isOneRead(tasks.options) ? tasks.timeoutError() : waitRefused(backend.name))
    }
    return Effect.flatMap(backend.read.many(ids), (answers) => {
      const result = tasks.onAnswers(ids, answers)
      for (const id of ids) tasks.due.delete(id)
      return Exit.isSuccess(result) ? readOnce : result
    })
  })
  return readOnce
}

/** Emits the records of tasks as they end. A task that cannot be read fails the stream after all others have ended. */
export const terminalRecords = (
  ids: ReadonlyArray<string>,
  options: GetOptions | undefined,
  needs: Needs
): Stream.Stream<TerminalRecord, TimeoutError | ReadError, Backend> =>
  Stream.unwrap(
    Effect.withFiber((fiber) => {
      const backend = Context.getUnsafe(fiber.context, Backend)
      const clock = fiber.getRef(Clock.Clock)
      const retry = fiber.getRef(ReadRetry) as Schedule.Schedule<unknown, ReadError>
      const run = fiber.getRef(CurrentRun)
      const tasks = new AwaitedTasks(ids, needs, readOptions(options))
      const { subscriptions } = backend
      const reads =
        subscriptions === undefined
          ? new PolledReads(tasks, backend, retry, clock)
          : new HintedReads(tasks, subscriptions, retry, clock)
      const isInTransaction = backend.read.isUnbatched(fiber.context)
      const news = isInTransaction
        ? makeReadOnce(backend, tasks)
        : makeAwaitNews(backend, tasks, reads, clock)
      const deadline = deadlineAfter(fiber, tasks.options.timeout)
      const awaitNews = run === undefined || isInTransaction ? news : run.withoutSlot(news, deadline)
      const pull: Effect.Effect<
        Arr.NonEmptyReadonlyArray<TerminalRecord>,
        TimeoutError | ReadError | Cause.Done
      > = Effect.suspend(() =>
        Effect.flatMap(tasks.take(), (taken) => {
          if (Arr.isReadonlyArrayNonEmpty(taken)) return Effect.succeed(taken)
          return tasks.open.size === 0 ? Cause.done() : Effect.andThen(awaitNews, pull)
        })
      )
      return Effect.as(
        Effect.addFinalizer(() => Effect.sync(() => reads.end())),
        Stream.fromPull(Effect.succeed(pull))
      )
    })
  )
