/** Starts as scripts take them, and what they answer. */
import type { Start, Started, StartDefaults } from "../BackendDriver.ts"
import { longestMillis } from "../internal/millis.ts"
import * as Body from "./BodyText.ts"
import * as Record from "./RecordText.ts"
import { encodeGroups, millis } from "./ScriptRunner.ts"

/** The answer to a start. */
export const toStarted = (answer: string): Started => {
  // a first run, with nothing to say of it
  if (answer === "R") return { _tag: "Run", fence: 1, attempt: 1, retries: 0, crashes: 0 }
  const [tag, ...numbers] = answer.split(" ")
  if (tag === "D") return { _tag: "Drop" }
  const [first = 0, attempt = 0, retries = 0, crashes = 0] = numbers.map(Number)
  // a time that was edited by hand may be no number any more
  return tag === "B"
    ? { _tag: "Busy", millis: Number.isSafeInteger(first) ? first : longestMillis }
    : { _tag: "Run", fence: first, attempt, retries, crashes }
}

/** What the starts of a task have in common. */
export const writeTerms = (terms: StartDefaults): ReadonlyArray<string> => [
  Record.encode(terms.task),
  millis(terms.leaseMillis),
  `${terms.maxCrashes}`,
  millis(terms.retentionMillis),
  millis(terms.deadLetterRetentionMillis)
]

/** What starts have in common is written once. */
export const writeStarts = (
  starts: ReadonlyArray<Start>,
  process: string,
  withBodies: boolean
): ReadonlyArray<string> => {
  const hasBody = ({ deliveryMode }: Start) => withBodies || deliveryMode === "at-most-once"
  return encodeGroups(
    starts,
    (ask) => [
      Record.encode(ask.worker),
      process,
      ...writeTerms(ask),
      ask.queue,
      ask.deliveryMode === "at-most-once" ? "1" : "-",
      `${ask.generation}`,
      millis(ask.expiresMillis),
      hasBody(ask) ? "1" : "0"
    ],
    (args, ask) => {
      args.push(ask.id, Record.encode(ask.token))
      if (hasBody(ask)) args.push(Body.encode(ask.body))
    }
  )
}
