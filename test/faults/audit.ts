/** Audits a run of the system under faults: what became of every accepted task. */
import { assert } from "@effect/vitest"
import { Exit } from "effect"
import type { TaskRecord } from "../../src/BackendDriver.ts"
import { isExpected, type Outcome, type Payload } from "./job.ts"
import type { WorkerEvent } from "./workerEvents.ts"

/** An accepted task, and what its producer knows of it. */
export interface Accepted {
  readonly id: string
  readonly payload: Payload
  /** The outcome that each of its waiters received; `undefined`: none in time. */
  readonly outcomes: ReadonlyArray<Outcome | undefined>
  /** The record at the end. */
  readonly record: TaskRecord | undefined
}

/** Counts of tasks, except for `runs` and `hanging`. */
export interface Audit {
  readonly enqueued: number
  /** Tasks in a terminal state. */
  readonly terminal: number
  /** Starts of a handler. */
  readonly runs: number
  /** Runs beyond those that the tasks' retries require. */
  readonly reruns: number
  /** Runs that were open when their worker was killed or frozen: the upper bound of `reruns`. */
  readonly openRuns: number
  /** Tasks with a second accepted outcome, a changed outcome, or a run that began after the end. */
  readonly duplicated: number
  /** Tasks whose outcome does not fit the payload or differs from a waiter's. */
  readonly wrong: number
  /** Accepted tasks that have not ended or have no record. */
  readonly lost: number
  /** Waiters without an outcome in time. */
  readonly hanging: number
}

type Settled = Extract<WorkerEvent, { readonly _tag: "Settled" }>

const isTerminal = (record: TaskRecord | undefined): record is TaskRecord =>
  record?.state === "SUCCESS" || record?.state === "FAILURE"

/** The events of one worker, and whether it was killed or frozen. */
export interface WorkerLog {
  readonly events: ReadonlyArray<WorkerEvent>
  readonly halted: boolean
}

const isFinal = (event: WorkerEvent): event is Settled =>
  event._tag === "Settled" &&
  event.answer !== "Lost" &&
  (event.outcome === "Success" || event.outcome === "Failure")

/** Counts the runs that a worker began and did not know to be settled. */
const openRunsOf = (events: ReadonlyArray<WorkerEvent>): number => {
  const open = new Set<string>()
  for (const event of events) {
    if (event._tag === "Began") open.add(event.id)
    if (event._tag === "Settled" && event.answer !== "Lost") open.delete(event.id)
  }
  return open.size
}

/** For each task, the fence of the accepted run and the highest fence of a run that began. */
const fencesOf = (workers: ReadonlyArray<WorkerLog>) => {
  const accepted = new Map<string, number>()
  const begun = new Map<string, number>()
  for (const { events } of workers) {
    const own = new Map<string, number>()
    for (const event of events) {
      if (event._tag === "Began") {
        own.set(event.id, event.fence)
        begun.set(event.id, Math.max(event.fence, begun.get(event.id) ?? 0))
      } else if (isFinal(event)) {
        accepted.set(event.id, own.get(event.id) ?? 0)
      }
    }
  }
  return { accepted, begun }
}

/** Counts items by key. */
const count = <A>(all: Iterable<A>, key: (one: A) => string): Map<string, number> => {
  const counts = new Map<string, number>()
  for (const one of all) counts.set(key(one), (counts.get(key(one)) ?? 0) + 1)
  return counts
}

/** Audits tasks against the events of the workers. */
export const of = (tasks: ReadonlyArray<Accepted>, workers: ReadonlyArray<WorkerLog>): Audit => {
  const events = workers.flatMap((worker) => worker.events)
  const runs = count(
    events.filter(({ _tag }) => _tag === "Began") as ReadonlyArray<{ readonly id: string }>,
    ({ id }) => id
  )
  const ends = new Map<string, Map<string, Settled>>()
  for (const event of events.filter(isFinal)) {
    const tokens = ends.get(event.id) ?? new Map<string, Settled>()
    ends.set(event.id, tokens.set(event.token, event))
  }
  const { accepted: fences, begun } = fencesOf(workers)
  /** The fence grows with every run: a higher one began after the end. */
  const isLate = (id: string): boolean => (begun.get(id) ?? 0) > (fences.get(id) ?? Infinity)
  const isDuplicated = ({ id, record }: Accepted): boolean => {
    const accepted = [...(ends.get(id)?.values() ?? [])]
    return (
      accepted.length > 1 ||
      isLate(id) ||
      (isTerminal(record) && accepted.some(({ exit }) => exit !== record.exit))
    )
  }
  const isWrong = ({ outcomes, payload, record }: Accepted): boolean =>
    outcomes.some((outcome) => outcome !== undefined && !isExpected(payload, outcome)) ||
    (isTerminal(record) &&
      outcomes.some(
        (outcome) => outcome !== undefined && Exit.isSuccess(outcome) !== (record.state === "SUCCESS")
      ))
  const rerunsOf = ({ id, payload }: Accepted): number =>
    Math.max(0, (runs.get(id) ?? 0) - payload.retries - 1)
  const sum = (numberOf: (task: Accepted) => number): number =>
    tasks.reduce((total, task) => total + numberOf(task), 0)
  return {
    enqueued: tasks.length,
    terminal: tasks.filter(({ record }) => isTerminal(record)).length,
    runs: [...runs.values()].reduce((total, runs) => total + runs, 0),
    reruns: sum(rerunsOf),
    openRuns: workers.reduce((total, { events, halted }) => total + (halted ? openRunsOf(events) : 0), 0),
    duplicated: tasks.filter(isDuplicated).length,
    wrong: tasks.filter(isWrong).length,
    lost: tasks.filter(({ record }) => !isTerminal(record)).length,
    hanging: sum(({ outcomes }) => outcomes.filter((outcome) => outcome === undefined).length)
  }
}

const columns = [
  "enqueued",
  "terminal",
  "runs",
  "reruns",
  "openRuns",
  "duplicated",
  "wrong",
  "lost",
  "hanging"
] as const satisfies ReadonlyArray<keyof Audit>

/** Formats audits as a table, one line each. */
export const table = (title: string, all: ReadonlyArray<readonly [name: string, audit: Audit]>): string => {
  const width = Math.max(title.length, ...all.map(([name]) => name.length))
  const line = (name: string, cells: ReadonlyArray<string | number>): string =>
    [name.padEnd(width), ...cells.map((cell, i) => String(cell).padStart(columns[i]!.length))].join("  ")
  return [
    line(title, columns),
    ...all.map(([name, audit]) =>
      line(
        name,
        columns.map((column) => audit[column])
      )
    )
  ].join("\n")
}

/** Sums audits. */
export const sum = (all: ReadonlyArray<Audit>): Audit =>
  Object.fromEntries(
    columns.map((column) => [column, all.reduce((total, audit) => total + audit[column], 0)])
  ) as Record<keyof Audit, number>

/** Lists the faults: a duplicated, wrong or lost outcome, a hanging waiter, a run repeated without need. */
export const findingsOf = (audit: Audit): ReadonlyArray<string> => {
  const { enqueued, openRuns, reruns, runs, terminal } = audit
  return [
    ...(["duplicated", "wrong", "lost", "hanging"] as const).flatMap((column) =>
      audit[column] === 0 ? [] : [`${audit[column]} ${column}`]
    ),
    ...(terminal === enqueued ? [] : [`${terminal} of ${enqueued} ended`]),
    // the events are complete: nothing ends that has not begun
    ...(runs >= terminal ? [] : [`${runs} runs were reported, though ${terminal} ended`]),
    ...(reruns <= openRuns ? [] : [`${reruns} ran again, though ${openRuns} were in hand`])
  ]
}

/** Fails if the audit has findings. */
export const verify = (audit: Audit): void =>
  assert.deepStrictEqual(findingsOf(audit), [], JSON.stringify(audit))
