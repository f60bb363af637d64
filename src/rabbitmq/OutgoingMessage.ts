/**
 * Messages to publish, and the properties that this library writes and reads.
 *
 * `messageId` holds the task's id, `type` its name, and `timestamp` the time at which the message becomes due, in
 * milliseconds. `appId` marks messages of this library; the properties of other messages are ignored.
 */
import { isUtf8 } from "node:buffer"
import type { Message, Options } from "amqplib"
import type { Envelope } from "../BrokerDriver.ts"
import * as defaults from "../internal/defaults.ts"
import { droppedBytesOf } from "./oversizedMessages.ts"

/** A message to publish. */
export interface OutgoingMessage {
  /** The queue that it reaches once its delay is over. */
  readonly queue: string
  readonly delayMillis: number
  readonly content: Buffer
  readonly properties: Options.Publish
}

/** What the properties of a message say about its task. */
export interface TaskProperties {
  readonly id?: string | undefined
  readonly task?: string | undefined
  readonly incarnation?: string | undefined
  readonly generation?: number | undefined
  /** When the message becomes due: epoch milliseconds, by the sender's clock. */
  readonly dueAt?: number | undefined
  /** For how many milliseconds in total the message was put back while it kept its due time. */
  readonly waitedMillis?: number | undefined
  /** Bytes of the body if it was dropped, as the message was oversized: of this delivery, or of one that it is a copy of. */
  readonly oversizedBytes?: number | undefined
}

const APP_ID = "chicory"
/** The longest short string of AMQP. Longer texts go into the headers. */
const MAX_PROPERTY_BYTES = 255
/** More than any text that this library writes. */
const MAX_HEADER_CHARS = 1000

const readText = (value: unknown): string | undefined =>
  typeof value === "string" && value.length <= MAX_HEADER_CHARS ? value : undefined
const readCount = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined
const readMillis = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined

/** Reads the properties of a message. A property of another type or range reads as `undefined`. */
export const readProperties = (message: Message): TaskProperties => {
  const { properties } = message
  const oversizedBytes = droppedBytesOf(message)
  if (properties.appId !== APP_ID) return { oversizedBytes }
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {}
  return {
    id: readText(properties.messageId ?? headers["id"]),
    task: readText(properties.type ?? headers["task"]),
    incarnation: readText(headers["incarnation"]) ?? "",
    generation: readCount(headers["generation"]) ?? 0,
    dueAt: readCount(properties.timestamp),
    waitedMillis: readMillis(headers["waited"]),
    oversizedBytes:
      oversizedBytes ?? (message.content.length === 0 ? readCount(headers["oversized"]) : undefined)
  }
}

/** Returns the body as text, or as bytes where it is not UTF-8. */
export const readBody = ({ content }: Message): string | Uint8Array =>
  isUtf8(content) ? content.toString("utf8") : Uint8Array.from(content)

const fitsProperty = (value: string): boolean =>
  value.length <= MAX_PROPERTY_BYTES / 3 || Buffer.byteLength(value) <= MAX_PROPERTY_BYTES

const writeProperties = (
  { dueAt, generation = 0, id, incarnation = "", oversizedBytes, task, waitedMillis }: TaskProperties,
  reason?: string
): Options.Publish => {
  const headers: Record<string, unknown> = {}
  const properties: Options.Publish = {
    persistent: true,
    mandatory: true,
    contentType: "application/json",
    appId: APP_ID,
    headers
  }
  if (id !== undefined && fitsProperty(id)) properties.messageId = id
  else if (id !== undefined) headers["id"] = id
  if (task !== undefined && fitsProperty(task)) properties.type = task
  else if (task !== undefined) headers["task"] = task
  // capped: a larger timestamp would not be read back
  if (dueAt !== undefined) properties.timestamp = Math.min(Math.ceil(dueAt), Number.MAX_SAFE_INTEGER)
  if (incarnation !== "") headers["incarnation"] = incarnation
  if (generation !== 0) headers["generation"] = generation
  if (waitedMillis !== undefined) headers["waited"] = waitedMillis
  if (oversizedBytes !== undefined) headers["oversized"] = oversizedBytes
  if (reason !== undefined) {
    headers["reason"] = reason
    properties.expiration = String(defaults.deadLetterRetentionMillis)
  }
  return properties
}

/** Makes the message of an envelope that is published at `now`. */
export const fromEnvelope = (
  { body, delayMillis, generation, id, incarnation, queue, task }: Envelope,
  now: number
): OutgoingMessage => ({
  queue,
  delayMillis,
  content: Buffer.from(body),
  properties: writeProperties({ id, task, incarnation, generation, dueAt: now + delayMillis })
})

/** Makes a copy of a delivered message: its bytes, and those of its properties that this library writes. */
export const fromDelivered = (
  message: Message,
  to: {
    readonly queue: string
    readonly delayMillis: number
    readonly dueAt?: number | undefined
    readonly waitedMillis?: number | undefined
    /** Why the message is rejected. It is kept as long as a dead letter. */
    readonly reason?: string | undefined
    /** Replaces the bytes. */
    readonly body?: string | undefined
  }
): OutgoingMessage => {
  const properties = readProperties(message)
  return {
    queue: to.queue,
    delayMillis: to.delayMillis,
    content: to.body === undefined ? message.content : Buffer.from(to.body),
    properties: writeProperties(
      { ...properties, dueAt: to.dueAt ?? properties.dueAt, waitedMillis: to.waitedMillis },
      to.reason
    )
  }
}
