/**
 * The model of a backend, as pure functions over plain data: tasks, their runs and their dead letters.
 *
 * It restates the port and shares no code with the stores. Every function takes the tasks and a time, and returns the
 * answer and the tasks after it. Times are milliseconds from the beginning of a sequence.
 */
import type { StoreDecidedEnd, Settled, Settlement, Start } from "../../src/BackendDriver.ts"
import type { TaskState } from "../../src/TaskState.ts"

/** An open run. */
export interface Run {
  readonly token: string
  readonly request: Start
  readonly leaseUntil: number
}

/** A task's record. */
export interface Task {
  readonly id: string
  readonly task: string
  readonly state: TaskState
  /** Tells the enqueues of one id apart. */
  readonly incarnation: string
  /** The queue of the enqueue; of a record that a replay created, that of the dead letter. */
  readonly queue: string
  readonly generation: number
  readonly attempt: number
  readonly retries: number
  readonly crashes: number
  readonly exit: string | null
  readonly progress: string | null
  readonly worker: string | null
  readonly cancelRequested: boolean
  readonly ended: StoreDecidedEnd | null
  readonly enqueuedAt: number
  readonly startedAt: number | null
  readonly finishedAt: number | null
  readonly expiresAt: number | null
  readonly key: string | undefined
  /** Empty where it is unknown. */
  readonly hash: string
  /** When a reservation may be removed; `undefined` once its message is known to be published. */
  readonly reservedUntil: number | undefined
  /** The message of the open run was removed from its queue. */
  readonly withdrawn: boolean
  readonly retention: number | undefined
  /** The time before which a retry is not started, or at which the delay of a task ends that was never started. */
  readonly dueAt: number | null
  /** The failures of the attempts of this generation that were retried. */
  readonly history: string
  readonly run: Run | undefined
  /** The last settlement, while it may be repeated. */
  readonly settled:
    | {
        readonly settlement: Settlement
        readonly answer: Settled
        /** Another write followed without a new run: a store need not remember the settlement. */
        readonly outdated: boolean
      }
    | undefined
  /** The fence of the last run. */
  readonly fence: number
}

/** A dead letter. */
export interface StoredDeadLetter {
  readonly id: string
  readonly taskId: string | null
  readonly task: string | null
  readonly incarnation: string
  readonly generation: number
  readonly queue: string
  readonly reason: string
  readonly exit: string | null
  readonly worker: string | null
  readonly body: string | Uint8Array
  readonly attempts: number
  readonly at: number
  readonly until: number
  /** The retention for a task whose record is gone at the replay. */
  readonly taskRetention: number | undefined
  readonly fence: number
}

/** The state of a backend. */
export interface Tasks {
  readonly tasks: ReadonlyMap<string, Task>
  readonly letters: ReadonlyMap<string, StoredDeadLetter>
}

/** An answer and the state after it. */
export type Step<A> = readonly [answer: A, after: Tasks]

export const empty: Tasks = { tasks: new Map(), letters: new Map() }

export const deadline = (now: number, millis: number | undefined): number =>
  millis === undefined ? Infinity : now + millis

export const isFinal = ({ state }: Task): boolean => state === "SUCCESS" || state === "FAILURE"

/** Returns when the record of an ended task is removed. */
const removableAt = ({ finishedAt, retention }: Task): number =>
  finishedAt === null ? Infinity : deadline(finishedAt, retention)

export const put = (all: Tasks, task: Task): Tasks => ({
  ...all,
  tasks: new Map(all.tasks).set(task.id, task)
})

/** Removes a task. */
export const remove = (all: Tasks, id: string): Tasks => {
  const tasks = new Map(all.tasks)
  tasks.delete(id)
  return { ...all, tasks }
}

/** Adds a dead letter as the newest. It replaces one of the same id. */
export const putDeadLetter = (all: Tasks, letter: StoredDeadLetter): Tasks => {
  const letters = new Map(all.letters)
  letters.delete(letter.id)
  return { ...all, letters: letters.set(letter.id, letter) }
}

/** Returns a task, unless its retention has run out. */
export const find = (all: Tasks, id: string, now: number): Task | undefined => {
  const task = all.tasks.get(id)
  return task === undefined || removableAt(task) <= now ? undefined : task
}

/** Returns a dead letter, unless its retention has run out. */
export const findDeadLetter = (all: Tasks, id: string, now: number): StoredDeadLetter | undefined => {
  const letter = all.letters.get(id)
  return letter === undefined || letter.until <= now ? undefined : letter
}

/** Returns the dead letters of a task, or all, newest first. */
export const deadLettersOf = (
  all: Tasks,
  task: string | undefined,
  now: number
): ReadonlyArray<StoredDeadLetter> =>
  [...all.letters.values()]
    .filter((letter) => letter.until > now && (task === undefined || letter.task === task))
    .toReversed()

/** The fields of a task before its first run. */
export const initial = {
  state: "PENDING",
  attempt: 0,
  retries: 0,
  crashes: 0,
  exit: null,
  progress: null,
  worker: null,
  cancelRequested: false,
  withdrawn: false,
  ended: null,
  startedAt: null,
  finishedAt: null,
  expiresAt: null,
  dueAt: null,
  history: "",
  run: undefined
} as const

// #region Ends

export const outdated = ({ settled }: Task): Task["settled"] => settled && { ...settled, outdated: true }

type End = Partial<Task> & { readonly state: "SUCCESS" | "FAILURE" }

/** Ends a task. The end of a forgotten task removes it. */
export const end = (all: Tasks, task: Task, now: number, how: End): Tasks =>
  task.ended === "Forgotten"
    ? remove(all, task.id)
    : put(all, { ...task, finishedAt: now, dueAt: null, run: undefined, settled: outdated(task), ...how })

export const endBy = (all: Tasks, task: Task, now: number, ended: StoreDecidedEnd): Tasks =>
  end(all, task, now, { state: "FAILURE", ended })

/** Writes the dead letter of a run. */
export const writeDeadLetter = (
  all: Tasks,
  task: Task,
  now: number,
  letter: Pick<StoredDeadLetter, "queue" | "body" | "reason" | "exit">,
  retention: number | undefined
): Tasks =>
  putDeadLetter(all, {
    ...letter,
    id: `${task.id}:${task.generation}${task.incarnation === "" ? "" : `.${task.incarnation}`}`,
    taskId: task.id,
    task: task.task,
    incarnation: task.incarnation,
    generation: task.generation,
    worker: task.worker,
    attempts: task.attempt,
    at: now,
    until: deadline(now, retention),
    taskRetention: task.retention,
    fence: task.fence
  })

/** Ends a task as `WorkerLost` with a dead letter. */
export const endAsLost = (
  all: Tasks,
  task: Task,
  run: Run,
  now: number,
  message: Pick<Start, "queue" | "body">
): Tasks =>
  endBy(
    writeDeadLetter(
      all,
      task,
      now,
      { queue: message.queue, body: message.body, reason: "WorkerLost", exit: null },
      run.request.deadLetterRetentionMillis
    ),
    task,
    now,
    "WorkerLost"
  )

export const hasExpired = ({ expiresAt, run, state }: Task, now: number): boolean =>
  run === undefined && (state === "PENDING" || state === "RETRY") && expiresAt !== null && expiresAt <= now

const hasLapsed = ({ run }: Task, now: number): boolean => run !== undefined && run.leaseUntil <= now

/** Whether a task ends unless its open run ends it: it was asked to stop, or has no message to go on with. */
export const isStopped = ({ cancelRequested, withdrawn }: Task): boolean => cancelRequested || withdrawn

/** Whether a task's run has lapsed and cannot be followed by another. */
const isLost = (task: Task, now: number): boolean =>
  hasLapsed(task, now) && (isStopped(task) || task.run?.request.deliveryMode === "at-most-once")

/** Whether time has ended a task, although nothing has noticed it yet. */
export const isOverdue = (task: Task, now: number): boolean => hasExpired(task, now) || isLost(task, now)

/** Returns how an overdue task ends. */
export const overdueEnd = (task: Task, now: number): "Expired" | "Cancelled" | "WorkerLost" => {
  if (hasExpired(task, now)) return "Expired"
  return isStopped(task) ? "Cancelled" : "WorkerLost"
}

/** Ends an overdue task, as starts, reads and the sweep do. */
export const endOverdue = (all: Tasks, task: Task, now: number): Tasks => {
  if (!isOverdue(task, now)) return all
  const ended = overdueEnd(task, now)
  return ended === "WorkerLost" && task.run !== undefined
    ? endAsLost(all, task, task.run, now, task.run.request)
    : endBy(all, task, now, ended)
}

/** Reads a task, as `read` and `subscribe` do. */
export const read = (all: Tasks, id: string, now: number): Step<Task | undefined> => {
  const task = find(all, id, now)
  const after = task === undefined ? all : endOverdue(all, task, now)
  return [find(after, id, now), after]
}

/** Bounds of a sweep's count: a store may have handled some tasks before. */
export interface Swept {
  readonly least: number
  readonly most: number
  /** The names of the tasks that it ends as `WorkerLost`, in order. */
  readonly lost: ReadonlyArray<string>
}

/** Ends overdue tasks, and removes those beyond their retention and reservations that were not published in time. */
export const sweep = (all: Tasks, now: number): Step<Swept> => {
  let after = all
  let [ended, gone] = [0, 0]
  const lost: Array<string> = []
  for (const task of all.tasks.values()) {
    if (isOverdue(task, now)) {
      ended++
      if (overdueEnd(task, now) === "WorkerLost") lost.push(task.task)
      after = endOverdue(after, task, now)
    } else if (removableAt(task) <= now || isStranded(task, now)) {
      gone++
      after = remove(after, task.id)
    }
  }
  const letters = new Map([...after.letters].filter(([, { until }]) => until > now))
  gone += after.letters.size - letters.size
  return [
    { least: ended, most: ended + gone, lost: lost.toSorted() },
    { ...after, letters }
  ]
}

/** Whether a reservation was not published in its time: a store may remove it, and its sweep does. */
export const isStranded = (task: Task, now: number): boolean =>
  !isFinal(task) && task.reservedUntil !== undefined && task.reservedUntil <= now

// #endregion
