/** Decodes records for users: the exit of a task, and the result of one read. */
import { Effect, Exit, Option } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import * as TaskFailed from "../../TaskFailed.ts"
import type { TaskResult } from "../../TaskResult.ts"
import { isTerminal } from "../../TaskState.ts"
import { toDate } from "../dates.ts"
import * as attemptHistory from "../task/attemptHistory.ts"
import * as TaskCodec from "../task/TaskCodec.ts"
import type { RecordWithHistory } from "./histories.ts"
import type { TerminalRecord } from "./terminalRecord.ts"

const utc = (millis: number | null) => Option.map(Option.fromNullOr(millis), toDate)

const taskFailed = <E>(record: TaskRecord, reason: TaskFailed.Reason<E>): TaskFailed.TaskFailed<E> =>
  TaskFailed.make({ taskId: record.id, taskName: record.task, attempts: record.attempt, reason })

/** Returns the reason of an end that the store decided. */
const endedReason = (record: TaskRecord): TaskFailed.Reason<never> => {
  switch (record.ended) {
    case "Expired":
      return new TaskFailed.Expired({ expiredAt: toDate(record.expiresAt ?? record.finishedAt ?? 0) })
    case "WorkerLost":
      return new TaskFailed.WorkerLost({ worker: record.worker ?? "unknown" })
    case "Cancelled":
      return new TaskFailed.Cancelled()
    case "Forgotten":
      return new TaskFailed.Forgotten()
    case null:
      return new TaskFailed.ResultInvalid({
        side: "reader",
        issue: "the record has ended without an exit"
      })
  }
}

/** Decodes the exit of a task that has ended. */
export const decodeExit = <A, E, R, P>(
  codec: TaskCodec.ResultCodec<A, E, P, R, unknown>,
  { forgotten, record }: TerminalRecord
): Effect.Effect<Exit.Exit<A, TaskFailed.TaskFailed<E>>, never, R> => {
  if (forgotten) return Effect.succeed(Exit.fail(taskFailed(record, new TaskFailed.Forgotten())))
  if (record.exit === null) return Effect.succeed(Exit.fail(taskFailed(record, endedReason(record))))
  return Effect.match(codec.decodeExit(record.exit), {
    onFailure: (error) =>
      Exit.fail(
        taskFailed(record, new TaskFailed.ResultInvalid({ side: "reader", ...TaskCodec.issueOf(error) }))
      ),
    onSuccess: (exit) =>
      exit._tag === "Success" ? Exit.succeed(exit.value) : Exit.fail(taskFailed(record, exit.reason))
  })
}

/** Decodes a record, and the history of its task, as one read of the task. */
export const toTaskResult = <A, E, R, P>(
  codec: TaskCodec.ResultCodec<A, E, P, R, unknown>,
  { history, record }: RecordWithHistory
): Effect.Effect<TaskResult<A, E, P>, never, R> =>
  Effect.gen(function* () {
    const exit = isTerminal(record.state)
      ? Option.some(yield* decodeExit(codec, { record, forgotten: false }))
      : Option.none()
    const progress =
      record.progress === null ? Option.none() : yield* Effect.option(codec.decodeProgress(record.progress))
    return {
      taskId: record.id,
      taskName: record.task,
      queue: Option.fromUndefinedOr(record.queue),
      state: record.state,
      attempts: record.attempt,
      dueAt: utc(record.dueAt ?? null),
      exit,
      history: attemptHistory.decode(history, record),
      progress,
      worker: Option.fromNullOr(record.worker),
      enqueuedAt: utc(record.enqueuedAt),
      startedAt: utc(record.startedAt),
      finishedAt: utc(record.finishedAt)
    }
  })
