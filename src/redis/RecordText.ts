/**
 * A record as it is stored: one text, so that a script reads and writes it in one command each.
 *
 * Its first line has the fields in a fixed order, divided by blanks; `-` stands for none. What follows is the encoded
 * exit of the run that ended the task. Progress lies in a key of its own.
 */
import type { TaskRecord } from "../BackendDriver.ts"
import { isTerminal, type TaskState } from "../TaskState.ts"
import { CorruptKey } from "./fieldDecoding.ts"

/**
 * The fields, in order. The first six are in front, so that the scripts can tell the most frequent steps, the first
 * start of a task and the success of a run, by the beginning of the text alone.
 */
export const FIELDS = [
  "state",
  /** Of the open run, or of the last one. */
  "token",
  /**
   * The processes to be told of changes, divided by commas: a letter, `a` for all changes or `e` for the end alone, and
   * the process. Nobody waits for a task that has ended.
   */
  "watch",
  /** `-`: none of what is marked with * is there. Set as the text is written. */
  "plain",
  "retention",
  /** Until when the open run is held; when the task finished. */
  "time",
  "generation",
  "attempt",
  "retries",
  "crashes",
  "fence",
  /** Before that time a retry is not started. */
  "due",
  "started",
  "worker",
  /** The process in which the last run was started. */
  "process",
  /** The retention of a dead letter that the store writes for the open run. */
  "letters",
  "task",
  "enqueued",
  "hash",
  /** * */
  "ended",
  /** * */
  "cancel",
  /** * */
  "expires",
  /** * It is a reservation, whose message is not known to be sent. */
  "unpublished",
  /** * The open run is delivered at most once. */
  "once",
  /** * There is progress. */
  "progress",
  /** * */
  "key",
  /** The key may lie in another shard. */
  "foreign"
] as const

/** What makes a record one that is not plain. */
export const UNUSUAL: ReadonlyArray<Field> = [
  "ended",
  "cancel",
  "expires",
  "unpublished",
  "once",
  "progress",
  "key"
]

type Field = (typeof FIELDS)[number]

const at = Object.fromEntries(FIELDS.map((field, index) => [field, index])) as Record<Field, number>

/** Any text as a field: without white space, not empty, and not `-`. */
export const encode = (text: string): string => {
  if (!/[%\s]|^-?$/.test(text)) return text
  if (text === "") return "%"
  if (text === "-") return "%2D"
  return text.replace(/[%\s]/g, encodeURIComponent)
}

/** The text of a field; `undefined`: it was not encoded by this store. */
export const decode = (field: string): string | undefined => {
  if (field === "%") return ""
  if (!field.includes("%")) return field
  try {
    return decodeURIComponent(field)
  } catch {
    return undefined
  }
}

const STATES: ReadonlySet<string> = new Set<TaskState>(["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"])
const ENDS: ReadonlySet<string> = new Set<NonNullable<TaskRecord["ended"]>>([
  "Expired",
  "WorkerLost",
  "Cancelled",
  "Forgotten"
])

/** Reads a record, as it came from that key; what does not fit throws `CorruptKey`. */
export const parse = (
  key: string,
  id: string,
  value: string,
  progressOf: () => string | undefined
): TaskRecord => {
  const end = value.indexOf("\n")
  const fields = value.slice(0, end).split(" ")
  const exit = value.slice(end + 1)

  const fail = (field: Field): never => {
    throw new CorruptKey({ key, field, value: fields[at[field]] ?? value })
  }
  const optional = (field: Field): string | null => {
    const found = fields[at[field]]
    return found === undefined || found === "-" ? null : found
  }
  const number = (field: Field): number | null => {
    const found = optional(field)
    if (found === null) return null
    const parsed = Number(found)
    return Number.isSafeInteger(parsed) ? parsed : fail(field)
  }
  const count = (field: Field): number => number(field) ?? fail(field)
  const text = (field: Field): string | null => {
    const found = optional(field)
    return found === null ? null : (decode(found) ?? fail(field))
  }

  const state = optional("state") ?? ""
  const ended = optional("ended")
  if (fields.length !== FIELDS.length || !STATES.has(state)) fail("state")
  if (ended !== null && !ENDS.has(ended)) fail("ended")
  return {
    id,
    task: text("task") ?? fail("task"),
    state: state as TaskState,
    generation: count("generation"),
    attempt: count("attempt"),
    retries: count("retries"),
    crashes: count("crashes"),
    exit: exit === "" ? null : exit,
    progress: optional("progress") === null ? null : (progressOf() ?? null),
    worker: text("worker"),
    cancelRequested: optional("cancel") !== null,
    ended: ended as TaskRecord["ended"],
    enqueuedAt: number("enqueued"),
    startedAt: number("started"),
    finishedAt: isTerminal(state as TaskState) ? number("time") : null,
    expiresAt: number("expires")
  }
}
