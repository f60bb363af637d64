/**
 * The message that a producer sends to a worker: versioned JSON, which the worker decodes with a schema.
 *
 * @since 0.1.0
 * @module
 */
import { Exit, Schema } from "effect"
import { parse } from "./internal/json.ts"
import { readTraceparent } from "./internal/traceparent.ts"

/**
 * The version of the format. A worker parks messages of other versions as dead letters, and never drops them.
 *
 * @category models
 * @since 0.1.0
 */
export const version = 1

/** Text that every store returns unchanged: not empty, at most 255 characters, without lone surrogates. */
const Name = Schema.NonEmptyString.check(
  Schema.isMaxLength(255),
  Schema.makeFilter((text: string) => text.isWellFormed(), { expected: "a text without lone surrogates" })
)
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * Schema of a message, with its payload still encoded.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TaskMessage = Schema.Struct({
  v: Schema.Literal(version),
  id: Name,
  /** Tells the enqueues of one id apart. Absent: empty, where the id was made for this enqueue alone. */
  incarnation: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^[0-9a-z]{1,32}$/))),
  /** 0 at first; grows by one with every replay of a dead letter. */
  generation: Count,
  task: Name,
  queue: Name,
  /** The payload as JSON, encoded with the codec of the task. */
  payload: Schema.Unknown,
  /** How often the task was retried; counted in the message only without a backend, otherwise in the record. */
  retries: Count,
  /** 0 to 255; a higher one runs first. */
  priority: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })),
  /** Milliseconds from the enqueue after which a task that still waits expires. Absent: never. */
  expires: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  /** Whether the sender wrote no record, so that the worker creates it. Absent: a message without a record is dropped. */
  unrecorded: Schema.optionalKey(Schema.Literal(true)),
  /** The producer's span, as a W3C `traceparent` of 55 characters. */
  traceparent: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(55))),
  /** When it was enqueued, in epoch milliseconds by the producer's clock. Only beside a `traceparent`. */
  enqueuedAt: Schema.optionalKey(Schema.Finite)
})

/**
 * A message, with its payload still encoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskMessage extends Schema.Schema.Type<typeof TaskMessage> {}

const decodeJson = Schema.decodeUnknownExit(TaskMessage)

/** Removes an invalid `traceparent` from a parsed message, and what a later version of it appends. */
const boundTraceparent = (message: unknown): void => {
  if (typeof message !== "object" || message === null || !("traceparent" in message)) return
  const valid = readTraceparent(message.traceparent)
  if (valid === undefined) delete message.traceparent
  else message.traceparent = valid
}

/**
 * Decodes the text of a message. Fails for anything that is not text, not JSON, or not a message of this version. An
 * invalid `traceparent` is no failure: the message is decoded without it.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = (text: unknown): Exit.Exit<TaskMessage, Schema.SchemaError> => {
  const json = parse(text)
  if (Exit.isFailure(json)) return Exit.failCause(json.cause)
  boundTraceparent(json.value)
  return decodeJson(json.value)
}

/**
 * A message without its payload.
 *
 * @category models
 * @since 0.1.0
 */
export type Head = Omit<TaskMessage, "payload">

/**
 * Returns the text of a message, from its other fields and the text of its payload.
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = (head: Head, payload: string): string =>
  `${JSON.stringify(head).slice(0, -1)},"payload":${payload}}`
