/** The verdict on a run of the system while things broke: what became of every task that was accepted. */
import { assert } from "@effect/vitest"
import { Exit } from "effect"
import type { TaskRecord } from "../../src/BackendDriver.ts"
import { isRight, type Outcome, type Payload } from "./job.ts"
import type { Entry } from "./workerEvents.ts"

/** A task that was accepted, and what its producer came to know of it. */
export interface Accepted {
  readonly id: string
  readonly payload: Payload
  /** What each of its waiters got; `undefined`: nothing in good time. */
  readonly got: ReadonlyArray<Outcome | undefined>
  /** What the store says in the end. */
  readonly record: TaskRecord | undefined
}

/** Numbers of tasks, but for `runs`. */
export interface Accounts {
  readonly enqueued: number
  /** Ended for good. */
  readonly terminal: number
  /** How often a handler began. */
  readonly runs: number
  /** Runs beyond those that the retries of a task ask for. */
  readonly ranAgain: number
  /** Runs that were in hand when their worker was killed or frozen: the most that may run again. */
  readonly inHand: number
  /** A second outcome was accepted, an outcome changed, or a run began after the end. */
  readonly doubled: number
  /** The outcome is not that of the payload, or not what a waiter got. */
  readonly wrong: number
  /** Accepted, and not ended, or unknown. */
  readonly lost: number
  /** Waiters, not tasks, that got nothing in good time. */
  readonly hanging: number
}

type Settled = Extract<Entry, { readonly _tag: "Settled" }>

const isTerminal = (record: TaskRecord | undefined): record is TaskRecord =>
  record?.state === "SUCCESS" || record?.state === "FAILURE"

/** What one worker told, and whether it was stopped in the midst of it. */
export interface Told {
  readonly entries: ReadonlyArray<Entry>
  readonly halted: boolean
}

const isFinal = (entry: Entry): entry is Settled =>
  entry._tag === "Settled" &&
  entry.answer !== "Lost" &&
  (entry.outcome === "Success" || entry.outcome === "Failure")

/** The runs that a worker had begun, and whose end it did not know to be stored. */
const inHandOf = (entries: ReadonlyArray<Entry>): number => {
  const open = new Set<string>()
  for (const entry of entries) {
    if (entry._tag === "Began") open.add(entry.id)
    if (entry._tag === "Settled" && entry.answer !== "Lost") open.delete(entry.id)
  }
  return open.size
}

/** For each task, the fence of the run whose end was accepted, and the highest of a run that began. */
const fencesOf = (workers: ReadonlyArray<Told>) => {
  const accepted = new Map<string, number>()
  const begun = new Map<string, number>()
  for (const { entries } of workers) {
    const own = new Map<string, number>()
    for (const entry of entries) {
      if (entry._tag === "Began") {
        own.set(entry.id, entry.fence)
        begun.set(entry.id, Math.max(entry.fence, begun.get(entry.id) ?? 0))
      } else if (isFinal(entry)) {
        accepted.set(entry.id, own.get(entry.id) ?? 0)
      }
    }
  }
  return { accepted, begun }
}

/** How many have each key. */
const count = <A>(all: Iterable<A>, key: (one: A) => string): Map<string, number> => {
  const counts = new Map<string, number>()
  for (const one of all) counts.set(key(one), (counts.get(key(one)) ?? 0) + 1)
  return counts
}

/** Draws up the accounts. */
export const of = (tasks: ReadonlyArray<Accepted>, workers: ReadonlyArray<Told>): Accounts => {
  const entries = workers.flatMap((worker) => worker.entries)
  const runs = count(
    entries.filter(({ _tag }) => _tag === "Began") as ReadonlyArray<{ readonly id: string }>,
    ({ id }) => id
  )
  const ends = new Map<string, Map<string, Settled>>()
  for (const entry of entries.filter(isFinal)) {
    const tokens = ends.get(entry.id) ?? new Map<string, Settled>()
    ends.set(entry.id, tokens.set(entry.token, entry))
  }
  const { accepted: fences, begun } = fencesOf(workers)
  /** The fence grows with every run: one that is higher began after the end. */
  const isLate = (id: string): boolean => (begun.get(id) ?? 0) > (fences.get(id) ?? Infinity)
  const isDoubled = ({ id, record }: Accepted): boolean => {
    const accepted = [...(ends.get(id)?.values() ?? [])]
    return (
      accepted.length > 1 ||
      isLate(id) ||
      (isTerminal(record) && accepted.some(({ exit }) => exit !== record.exit))
    )
  }
  const isWrong = ({ got, payload, record }: Accepted): boolean =>
    got.some((outcome) => outcome !== undefined && !isRight(payload, outcome)) ||
    (isTerminal(record) &&
      got.some(
        (outcome) => outcome !== undefined && Exit.isSuccess(outcome) !== (record.state === "SUCCESS")
      ))
  const again = ({ id, payload }: Accepted): number => Math.max(0, (runs.get(id) ?? 0) - payload.retries - 1)
  const sum = (numberOf: (task: Accepted) => number): number =>
    tasks.reduce((total, task) => total + numberOf(task), 0)
  return {
    enqueued: tasks.length,
    terminal: tasks.filter(({ record }) => isTerminal(record)).length,
    runs: [...runs.values()].reduce((total, runs) => total + runs, 0),
    ranAgain: sum(again),
    inHand: workers.reduce((total, { entries, halted }) => total + (halted ? inHandOf(entries) : 0), 0),
    doubled: tasks.filter(isDoubled).length,
    wrong: tasks.filter(isWrong).length,
    lost: tasks.filter(({ record }) => !isTerminal(record)).length,
    hanging: sum(({ got }) => got.filter((outcome) => outcome === undefined).length)
  }
}

const columns = [
  "enqueued",
  "terminal",
  "runs",
  "ranAgain",
  "inHand",
  "doubled",
  "wrong",
  "lost",
  "hanging"
] as const satisfies ReadonlyArray<keyof Accounts>

/** One line for each of the accounts, under a title. */
export const page = (
  title: string,
  all: ReadonlyArray<readonly [name: string, accounts: Accounts]>
): string => {
  const width = Math.max(title.length, ...all.map(([name]) => name.length))
  const line = (name: string, cells: ReadonlyArray<string | number>): string =>
    [name.padEnd(width), ...cells.map((cell, i) => String(cell).padStart(columns[i]!.length))].join("  ")
  return [
    line(title, columns),
    ...all.map(([name, accounts]) =>
      line(
        name,
        columns.map((column) => accounts[column])
      )
    )
  ].join("\n")
}

/** All of them together. */
export const sum = (all: ReadonlyArray<Accounts>): Accounts =>
  Object.fromEntries(
    columns.map((column) => [column, all.reduce((total, accounts) => total + accounts[column], 0)])
  ) as Record<keyof Accounts, number>

/** What should not be: an outcome that is doubled, wrong or lost, a waiter that is left, a run that was repeated without need. */
export const faultsOf = (accounts: Accounts): ReadonlyArray<string> => {
  const { enqueued, inHand, ranAgain, runs, terminal } = accounts
  return [
    ...(["doubled", "wrong", "lost", "hanging"] as const).flatMap((column) =>
      accounts[column] === 0 ? [] : [`${accounts[column]} ${column}`]
    ),
    ...(terminal === enqueued ? [] : [`${terminal} of ${enqueued} ended`]),
    // what is told is complete: nothing ends that has not begun
    ...(runs >= terminal ? [] : [`${runs} runs were told of, though ${terminal} ended`]),
    ...(ranAgain <= inHand ? [] : [`${ranAgain} ran again, though ${inHand} were in hand`])
  ]
}

/** Fails unless all is as it has to be. */
export const verify = (accounts: Accounts): void =>
  assert.deepStrictEqual(faultsOf(accounts), [], JSON.stringify(accounts))
