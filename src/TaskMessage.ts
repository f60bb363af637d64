/** What travels from producer to worker: JSON, versioned, decoded by Schema on arrival. */
import { Exit, Schema } from "effect"
import { parse } from "./internal/json.ts"

/** The version of the format. A message of another version is parked, never dropped. */
export const version = 1

/** What every store keeps as it is: neither empty nor too long, and without lone surrogates. */
const Name = Schema.NonEmptyString.check(
  Schema.isMaxLength(255),
  Schema.makeFilter((text: string) => text.isWellFormed(), { expected: "a text without lone surrogates" })
)
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** A message, with its payload still encoded. */
export const TaskMessage = Schema.Struct({
  v: Schema.Literal(version),
  id: Name,
  /** Grows with every replay of a dead letter. */
  generation: Count,
  task: Name,
  queue: Name,
  /** JSON, by the codec of the task's payload. */
  payload: Schema.Unknown,
  /** Counted here only without a backend; the record counts otherwise. */
  retries: Count,
  /** 0 to 255, higher first. */
  priority: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })),
  /** Milliseconds from the enqueue after which a task that still waits expires. */
  expires: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  /** The producer's span, as W3C trace context. */
  traceparent: Schema.optionalKey(Schema.String)
})

/** A message, with its payload still encoded. */
export interface TaskMessage extends Schema.Schema.Type<typeof TaskMessage> {}

const decodeJson = Schema.decodeUnknownExit(TaskMessage)

/** Decodes the text of a message. */
export const decode = (text: unknown): Exit.Exit<TaskMessage, Schema.SchemaError> => {
  const json = parse(text)
  return Exit.isSuccess(json) ? decodeJson(json.value) : Exit.failCause(json.cause)
}

/** A message without its payload. */
export type Head = Omit<TaskMessage, "payload">

/** The text of a message, over the text of its payload. The other fields are JSON by construction. */
export const encode = (head: Head, payload: string): string =>
  `${JSON.stringify(head).slice(0, -1)},"payload":${payload}}`
