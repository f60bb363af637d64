/**
 * The history of a task: what made its attempts fail that were retried, as text that a store appends to and does not read.
 *
 * An entry is one line of JSON in ASCII, so that a store counts characters and bytes alike. The store keeps the last
 * `maxHistorySize` characters, which may cut the first line. A line that does not decode is left out.
 */
import { DateTime, Exit, Option, Schema } from "effect"
import type { Died, Failed, RetriesExhausted, TimedOut } from "../../TaskFailed.ts"
import { FailedAttempt } from "../../TaskResult.ts"
import { errorMessage, errorStack, errorTag } from "../errorText.ts"
import { parse } from "../json.ts"

/** Bytes of a message and of a stack, at most, and of what they take in the JSON. */
const MESSAGE_BYTES = 1024
const STACK_BYTES = 2048
const ESCAPED = 2
/** Characters of names in the JSON, at most. */
const NAME_CHARACTERS = 512
/** The attempts that a history shows, at most: the last ones. */
const MAX_ATTEMPTS = 20

/** The reasons with which a task ends if no retry is left. */
export type RetryReason = Failed<unknown> | Died | TimedOut | RetriesExhausted

/** An attempt that failed and is retried. Times are epoch milliseconds of the worker's clock. */
export interface AttemptFailure {
  /** The reason with which the task had ended, if no retry had been left. */
  readonly reason: RetryReason
  readonly attempt: number
  readonly startedAt: number
  readonly failedAt: number
}

const Entry = Schema.Struct({ ...FailedAttempt.fields, generation: Schema.Int })
const EntryJson = Schema.toCodecJson(Entry)
const encodeEntry = Schema.encodeSync(EntryJson)
const decodeEntry = Schema.decodeUnknownExit(EntryJson)

/** Returns JSON in ASCII. */
const toAscii = (json: string): string =>
  json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)

const sizeOf = (text: string): number => toAscii(JSON.stringify(text)).length - 2

/** Returns a text, cut to a number of characters in the JSON, with `…` at the end where it was cut. */
const fitting = (text: string, max: number): string => {
  let fits = text.toWellFormed()
  while (sizeOf(fits) > max) {
    const share = Math.min(0.9, max / sizeOf(fits))
    fits = `${fits.slice(0, Math.floor((fits.length - 1) * share)).toWellFormed()}…`
  }
  return fits
}

type ErrorTexts = Pick<FailedAttempt, "reason" | "tag" | "message" | "stack">

const textsOf = (reason: RetryReason): ErrorTexts => {
  switch (reason._tag) {
    case "Failed":
    case "Died": {
      const error = reason._tag === "Failed" ? reason.error : reason.defect
      return {
        reason: reason._tag,
        tag: fitting(errorTag(error), NAME_CHARACTERS),
        message: fitting(errorMessage(error, MESSAGE_BYTES), MESSAGE_BYTES * ESCAPED),
        stack: Option.map(Option.fromUndefinedOr(errorStack(error, STACK_BYTES)), (stack) =>
          fitting(stack, STACK_BYTES * ESCAPED)
        )
      }
    }
    case "TimedOut":
      return { reason: reason._tag, tag: reason._tag, message: reason.message, stack: Option.none() }
    case "RetriesExhausted": {
      const tag = "RetryRequested"
      return { reason: tag, tag, message: "the handler asked for a retry", stack: Option.none() }
    }
  }
}

/** Encodes the entry of a failed attempt: one line, with its line break. */
export const encode = (
  { attempt, failedAt, reason, startedAt }: AttemptFailure,
  { generation, worker }: { readonly generation: number; readonly worker: string }
): string => {
  const entry = encodeEntry({
    ...textsOf(reason),
    attempt,
    generation,
    worker: fitting(worker, NAME_CHARACTERS),
    startedAt: DateTime.makeUnsafe(startedAt),
    failedAt: DateTime.makeUnsafe(failedAt)
  })
  return `${toAscii(JSON.stringify(entry))}\n`
}

/**
 * Decodes the history of a task whose record was read before, the oldest attempt first. Attempts that the record does not
 * know yet are left out.
 */
export const decode = (
  history: string | undefined,
  { attempt, generation }: { readonly attempt: number; readonly generation: number }
): ReadonlyArray<FailedAttempt> => {
  if (history === undefined) return []
  const attempts: Array<FailedAttempt> = []
  for (const line of history.split("\n")) {
    const json = parse(line)
    const entry = Exit.isSuccess(json) ? decodeEntry(json.value) : json
    if (Exit.isFailure(entry)) continue
    const { generation: itsGeneration, ...failed } = entry.value
    if (itsGeneration === generation && failed.attempt <= attempt) attempts.push(failed)
  }
  return attempts.slice(-MAX_ATTEMPTS)
}
