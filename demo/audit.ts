/**
 * Compares what was enqueued with what came back. Each number is counted from three sources: the results that the
 * producer received, the records that the store holds at the end, and the events that the workers reported.
 *
 * *Doubled* counts second terminal writes, which the store should refuse. One shows in either of two ways, and the
 * greater count is taken.
 *
 * - It changes the record. The producer reads each record as soon as its result arrives, and again when no worker
 *   runs. A task that is taken over runs again two seconds after its first run at the earliest, so a second write comes
 *   long after the first read, and changes the record's worker, attempts, times or outcome.
 * - It exceeds the number of tasks. A worker counts the outcomes that the store accepted from it. The surviving
 *   worker's count is final, and must equal the number of final records that name it.
 *
 * The results that the producer received must also equal those in the records at the end.
 */
import type { TaskFailed, TaskResult } from "chicory"
import { Data, Equal, type Exit, Option } from "effect"
import { type Digest, FileUnreadable } from "./tasks.ts"
import type { WorkerEvent } from "./workerEvents.ts"

/** How a task ended, as the producer received it. */
export type Outcome = Data.TaggedEnum<{
  Digested: { readonly digest: Digest }
  Unreadable: { readonly error: FileUnreadable }
  /** A failure that the task does not declare. */
  Broken: { readonly failed: TaskFailed.TaskFailed<FileUnreadable> }
}>

/** How a task ended, as the producer received it. */
export const Outcome = Data.taggedEnum<Outcome>()

/** A result that the producer received. */
export interface Received {
  readonly taskId: string
  readonly exit: Exit.Exit<Digest, TaskFailed.TaskFailed<FileUnreadable>>
  readonly outcome: Outcome
  /** The task's record, read as soon as the result arrived. */
  readonly record: Option.Option<Snapshot>
}

type Snapshot = TaskResult.TaskResult<Digest, FileUnreadable>

/** A worker and the events that it reported. */
export interface WorkerReport {
  /** Its name in the records. */
  readonly worker: string
  readonly events: ReadonlyArray<WorkerEvent>
}

/** The input of the audit. */
export interface Evidence {
  /** The path of each task's file, by task id. */
  readonly enqueued: ReadonlyMap<string, string>
  /** The path without a file. */
  readonly missing: string
  readonly received: ReadonlyArray<Received>
  /** The records by task id, read when no worker ran. */
  readonly records: ReadonlyMap<string, Snapshot>
  /** The producer's own SHA-256 by path, of the files that it can read and that did not change. */
  readonly known: ReadonlyMap<string, string>
  /** The tasks that the killed worker was running when it was killed. */
  readonly abandoned: ReadonlyArray<string>
  /** The worker that was not killed. */
  readonly survivor: WorkerReport
}

/** The result of the audit. It passed when `problems` is empty. */
export interface Audit {
  readonly enqueued: number
  readonly results: number
  readonly failures: number
  readonly takenOver: number
  readonly lost: number
  readonly doubled: number
  /** Results that the producer compared with its own hash of the file. */
  readonly checked: number
  /** A sentence for each problem. */
  readonly problems: ReadonlyArray<string>
}

/** Audits a run of the demo. */
export const audit = ({
  abandoned,
  enqueued,
  known,
  missing,
  received,
  records,
  survivor
}: Evidence): Audit => {
  const tasks = [...enqueued.keys()]
  const pathOf = (taskId: string) => enqueued.get(taskId)!
  const finalRecord = (taskId: string) => Option.fromUndefinedOr(records.get(taskId))
  const isFinal = (record: Snapshot) => Option.isSome(record.exit)
  const isSurvivors = (record: Snapshot) => Option.contains(record.worker, survivor.worker)

  const results = received.filter(({ outcome }) => outcome._tag === "Digested")
  const failures = received.filter(({ outcome }) => outcome._tag === "Unreadable")
  const broken = received.flatMap(({ outcome }) => (outcome._tag === "Broken" ? [outcome.failed] : []))

  const arrived = new Set(received.map(({ taskId }) => taskId))
  const lost = tasks.filter((id) => !arrived.has(id) || !Option.exists(finalRecord(id), isFinal))

  // the record says that the survivor ran the task again, and the survivor's events say so too
  const startedIds = new Set(
    survivor.events.flatMap((event) => (event._tag === "RunStarted" ? [event.taskId] : []))
  )
  const isTakenOver = (record: Snapshot) =>
    record.attempts > 1 && isSurvivors(record) && startedIds.has(record.taskId)
  const takenOver = tasks.filter((id) => Option.exists(finalRecord(id), isTakenOver))

  const changed = received.filter(({ record, taskId }) =>
    Option.exists(
      Option.filter(finalRecord(taskId), isFinal),
      (last) => !Equal.equals(record, Option.some(last))
    )
  )
  const accepted = survivor.events.find((event) => event._tag === "Drained")?.accepted ?? 0
  const ended = tasks.filter((id) =>
    Option.exists(finalRecord(id), (record) => isFinal(record) && isSurvivors(record))
  )

  const different = received.filter(
    ({ exit, taskId }) =>
      !Option.exists(finalRecord(taskId), (record) => Equal.equals(record.exit, Option.some(exit)))
  )
  const found = ({ taskId }: Received) => known.get(pathOf(taskId))
  const wrong = received.filter((one) =>
    Outcome.$match(one.outcome, {
      Digested: ({ digest }) => (found(one) ?? digest.sha256) !== digest.sha256,
      Unreadable: ({ error }) => error.path !== pathOf(one.taskId) || found(one) !== undefined,
      Broken: () => false
    })
  )
  const isTheMissing = ({ outcome }: Received) =>
    outcome._tag === "Unreadable" &&
    outcome.error instanceof FileUnreadable &&
    outcome.error.path === missing &&
    outcome.error.reason === "NotFound"

  const counts = {
    enqueued: tasks.length,
    results: results.length,
    failures: failures.length,
    takenOver: takenOver.length,
    lost: lost.length,
    doubled: Math.max(changed.length, accepted - ended.length),
    checked: results.filter((one) => found(one) !== undefined).length
  }
  const unless = (isKept: boolean, otherwise: string) => (isKept ? [] : [otherwise])
  const none = (what: string, ids: ReadonlyArray<string>) =>
    unless(ids.length === 0, `${ids.length} ${what}, such as ${ids.slice(0, 3).map(pathOf).join(", ")}`)
  const idsOf = (some: ReadonlyArray<Received>) => some.map(({ taskId }) => taskId)
  return {
    ...counts,
    problems: [
      ...unless(
        results.length + failures.length === tasks.length,
        "the number of results and failures is not that of the tasks"
      ),
      ...broken.slice(0, 3).map(({ message }) => message),
      ...none("tasks were lost", lost),
      ...none("records changed after their result arrived", idsOf(changed)),
      ...none("records have another outcome than the producer received", idsOf(different)),
      ...unless(
        accepted === ended.length,
        `the store accepted ${accepted} outcomes from the surviving worker, and holds ${ended.length}`
      ),
      ...none("results are not those of the file", idsOf(wrong)),
      ...unless(failures.some(isTheMissing), "the missing file did not come back as FileUnreadable"),
      ...unless(abandoned.length > 0, "no worker was killed in the middle of a task"),
      ...none(
        "tasks of the killed worker were not taken over",
        abandoned.filter((id) => !takenOver.includes(id))
      )
    ]
  }
}
