/**
 * A record as it is stored: one text, so that a script reads or writes it in one command.
 *
 * The first line holds the fields in a fixed order, divided by blanks; `-` stands for none. The rest is the encoded exit
 * of the run that ended the task. Progress and the history of a task that was retried lie under other keys.
 */
import type { TaskRecord } from "../BackendDriver.ts"
import { shapeOf } from "../internal/errorText.ts"
import { isTerminal, type TaskState } from "../TaskState.ts"
import * as FieldText from "./FieldText.ts"
import * as IncarnationText from "./IncarnationText.ts"
import { CorruptKey } from "./RedisStoreError.ts"

/**
 * The fields, in order. The first six come first so that the scripts recognise the most frequent steps, the first start
 * of a task and the success of a run, by the beginning of the text alone.
 */
export const FIELDS = [
  "state",
  /** Token of the open run, or of the last one. */
  "token",
  /**
   * The processes to send hints to, divided by commas: `a` for every change or `e` for the end alone, and the process.
   * `-` once the task has ended.
   */
  "subscribers",
  /** `-`: none of the fields marked with * is set, and the task was not retried. Written with the text. */
  "plain",
  "retention",
  /** Of a started task: when its lease ends. Of an ended one: when it ended. */
  "time",
  "generation",
  "attempt",
  "retries",
  "crashes",
  "fence",
  /** A retry is not started before this time. Of a task that was never started: when the delay of its enqueue ends. */
  "dueAt",
  "startedAt",
  "worker",
  /** The process that started the last run. */
  "process",
  /** Retention of a dead letter that the store writes for the open run. */
  "deadLetterRetention",
  "task",
  /** `-` for an empty one. */
  "incarnation",
  "enqueuedAt",
  "payloadHash",
  "queue",
  /** * */
  "ended",
  /** * The open run is to end the task: `1` as a cancel was requested, or `2` as its message was withdrawn. */
  "stop",
  /** * */
  "expiresAt",
  /** * The record is a reservation, whose message is not known to be sent, and is removed at this time. */
  "reservedUntil",
  /** * The open run is of an at-most-once task. */
  "atMostOnce",
  /** * There is progress. */
  "progress",
  /** * */
  "key",
  /** Of a key that may lie in another shard: the claim under which the record holds it (see `KeyHolder`). */
  "keyClaim",
  /** * The message that waits with the task until it is due: its member among the delayed, `/`, and the queue. */
  "delayedMessage"
] as const

/** The fields that are all empty in a plain record, which has no retries, and so no history, either. */
export const UNUSUAL_FIELDS: ReadonlyArray<Field> = [
  "ended",
  "stop",
  "expiresAt",
  "reservedUntil",
  "atMostOnce",
  "progress",
  "key",
  "delayedMessage"
]

type Field = (typeof FIELDS)[number]

const at = Object.fromEntries(FIELDS.map((field, index) => [field, index])) as Record<Field, number>

const STATES: ReadonlySet<string> = new Set<TaskState>(["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"])
const ENDS: ReadonlySet<string> = new Set<NonNullable<TaskRecord["ended"]>>([
  "Expired",
  "WorkerLost",
  "Cancelled",
  "Forgotten"
])

/** Decodes a record that was read from a key. A field that does not fit throws `CorruptKey`. */
export const decode = (
  key: string,
  id: string,
  value: string,
  progressOf: () => string | undefined
): TaskRecord => {
  const end = value.indexOf("\n")
  const fields = value.slice(0, end).split(" ")
  const exit = value.slice(end + 1)

  const fail = (field: Field): never => {
    throw new CorruptKey({ key, field, holds: shapeOf(fields[at[field]] ?? value) })
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
    return found === null ? null : (FieldText.decode(found) ?? fail(field))
  }

  const state = optional("state") ?? ""
  const ended = optional("ended")
  if (fields.length !== FIELDS.length || !STATES.has(state)) fail("state")
  if (ended !== null && !ENDS.has(ended)) fail("ended")
  return {
    id,
    task: text("task") ?? fail("task"),
    state: state as TaskState,
    incarnation: IncarnationText.decode(fields[at.incarnation] ?? fail("incarnation")),
    generation: count("generation"),
    attempt: count("attempt"),
    retries: count("retries"),
    crashes: count("crashes"),
    queue: text("queue") ?? undefined,
    exit: exit === "" ? null : exit,
    progress: optional("progress") === null ? null : (progressOf() ?? null),
    worker: text("worker"),
    cancelRequested: optional("stop") === "1",
    ended: ended as TaskRecord["ended"],
    enqueuedAt: count("enqueuedAt"),
    startedAt: number("startedAt"),
    finishedAt: isTerminal(state as TaskState) ? number("time") : null,
    expiresAt: number("expiresAt"),
    dueAt: number("dueAt")
  }
}
