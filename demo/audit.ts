/**
 * The demo's accounts: what was enqueued, held against what came back. Nothing here is assumed; each number is counted
 * from what the producer was given, what the store holds in the end, and what the workers told.
 *
 * The hard one is *doubled*: how does one see a second terminal write that the store should have refused? In two ways.
 *
 * - It changes the record. The producer reads each record as soon as its result arrives, and again when no worker is
 *   left. A task that is taken over runs again two seconds after its first run at the earliest, so a second write comes
 *   long after the first reading, and shows: in the record's worker, its attempts, its times or its outcome.
 * - It is one more than there are tasks to end. A worker counts the writes that the store accepted from it. Of the
 *   worker that was left that number is final, and must be the number of records which say that they are its own.
 *
 * The greater of the two counts. And what the producer was given must be what the store holds in the end.
 */
import type { TaskFailed, TaskResult } from "chicory"
import { Data, Equal, type Exit, Option } from "effect"
import type { Entry } from "./workerEvents.ts"
import { type Digest, FileUnreadable } from "./tasks.ts"

/** What became of a task, for the one who waited for it. */
export type Outcome = Data.TaggedEnum<{
  Digested: { readonly digest: Digest }
  Unreadable: { readonly error: FileUnreadable }
  /** In no way that the task declares. */
  Broken: { readonly failed: TaskFailed.TaskFailed<FileUnreadable> }
}>

/** What became of a task, for the one who waited for it. */
export const Outcome = Data.taggedEnum<Outcome>()

/** A result as it arrived. */
export interface Received {
  readonly taskId: string
  readonly exit: Exit.Exit<Digest, TaskFailed.TaskFailed<FileUnreadable>>
  readonly outcome: Outcome
  /** The record of the task, read as soon as the result had arrived. */
  readonly record: Option.Option<Snapshot>
}

type Snapshot = TaskResult<Digest, FileUnreadable>

/** Who worked. */
export interface Witness {
  /** Its name in the records. */
  readonly worker: string
  readonly journal: ReadonlyArray<Entry>
}

/** All that the accounts are made of. */
export interface Evidence {
  /** The path of each task's file, by the task's id. */
  readonly enqueued: ReadonlyMap<string, string>
  /** The path where there is no file. */
  readonly missing: string
  readonly received: ReadonlyArray<Received>
  /** The records, by task id, when no worker was left. */
  readonly records: ReadonlyMap<string, Snapshot>
  /** The SHA-256 by path, as the producer finds it: of the files that it can read, and that stayed as they were. */
  readonly known: ReadonlyMap<string, string>
  /** The tasks that the killed worker was running when it was killed. */
  readonly abandoned: ReadonlyArray<string>
  /** The worker that was left. */
  readonly survivor: Witness
}

/** The accounts. They are right when there is no problem. */
export interface Accounts {
  readonly enqueued: number
  readonly results: number
  readonly failures: number
  readonly takenOver: number
  readonly lost: number
  readonly doubled: number
  /** Results that the producer has held against the file itself. */
  readonly checked: number
  /** What is not as it should be, in words. */
  readonly problems: ReadonlyArray<string>
}

/** Draws up the accounts. */
export const drawUp = ({
  abandoned,
  enqueued,
  known,
  missing,
  received,
  records,
  survivor
}: Evidence): Accounts => {
  const tasks = [...enqueued.keys()]
  const pathOf = (taskId: string) => enqueued.get(taskId)!
  const inTheEnd = (taskId: string) => Option.fromUndefinedOr(records.get(taskId))
  const isFinal = (record: Snapshot) => Option.isSome(record.exit)
  const isOwn = (record: Snapshot) => Option.contains(record.worker, survivor.worker)

  const results = received.filter(({ outcome }) => outcome._tag === "Digested")
  const failures = received.filter(({ outcome }) => outcome._tag === "Unreadable")
  const broken = received.flatMap(({ outcome }) => (outcome._tag === "Broken" ? [outcome.failed] : []))

  const arrived = new Set(received.map(({ taskId }) => taskId))
  const lost = tasks.filter((id) => !arrived.has(id) || !Option.exists(inTheEnd(id), isFinal))

  // run again, says the store, and by the worker that was left; which says that it did
  const begun = new Set(survivor.journal.flatMap((entry) => (entry._tag === "Began" ? [entry.taskId] : [])))
  const isTakenOver = (record: Snapshot) => record.attempts > 1 && isOwn(record) && begun.has(record.taskId)
  const takenOver = tasks.filter((id) => Option.exists(inTheEnd(id), isTakenOver))

  const changed = received.filter(({ record, taskId }) =>
    Option.exists(
      Option.filter(inTheEnd(taskId), isFinal),
      (last) => !Equal.equals(record, Option.some(last))
    )
  )
  const accepted = survivor.journal.find((entry) => entry._tag === "Left")?.accepted ?? 0
  const ended = tasks.filter((id) =>
    Option.exists(inTheEnd(id), (record) => isFinal(record) && isOwn(record))
  )

  const untold = received.filter(
    ({ exit, taskId }) =>
      !Option.exists(inTheEnd(taskId), (record) => Equal.equals(record.exit, Option.some(exit)))
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

  const accounts = {
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
    ...accounts,
    problems: [
      ...unless(results.length + failures.length === tasks.length, "what came back is not what was enqueued"),
      ...broken.slice(0, 3).map(({ message }) => message),
      ...none("lost", lost),
      ...none("ended once more after the result was there", idsOf(changed)),
      ...none("ended in the store otherwise than the producer was told", idsOf(untold)),
      ...unless(
        accepted === ended.length,
        `the store accepted ${accepted} ends from the worker that was left, and holds ${ended.length}`
      ),
      ...none("results that the producer does not find in the file itself", idsOf(wrong)),
      ...unless(failures.some(isTheMissing), "the missing file did not come back as FileUnreadable"),
      ...unless(abandoned.length > 0, "no worker was killed in the middle of a task"),
      ...none(
        "left by the killed worker and not taken over",
        abandoned.filter((id) => !takenOver.includes(id))
      )
    ]
  }
}
