/**
 * A message on its way: what its properties say.
 *
 * The id of its task is the `messageId`, the task's name the `type`, and the `timestamp` says, in milliseconds, when it
 * becomes due. That holds for messages whose `appId` says so: what others send, means by its properties whatever they
 * mean.
 */
import { isUtf8 } from "node:buffer"
import type { Message, Options } from "amqplib"
import type { Envelope } from "../BrokerDriver.ts"

/** A message to be published. */
export interface OutgoingMessage {
  /** The queue for which it is, in the end. */
  readonly queue: string
  readonly delayMillis: number
  readonly content: Buffer
  readonly properties: Options.Publish
}

/** What is known of a message without its bytes. */
export interface TaskProperties {
  readonly id?: string | undefined
  readonly task?: string | undefined
  readonly generation?: number | undefined
  readonly expires?: number | undefined
  /** When the message became or becomes due: milliseconds, by the clock of whoever sent it. */
  readonly dueAt?: number | undefined
  /** For how long it was put back, and kept that time, in all: milliseconds. */
  readonly waited?: number | undefined
}

/** Marks messages of this library. */
const APP = "chicory"
/** What is longer than a property may be stands in the headers, where this library's own texts fit. */
const PROPERTY_BYTES = 255
const HEADER_CHARS = 1000

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value.length <= HEADER_CHARS ? value : undefined
const count = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined
const millis = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined

const unknown: TaskProperties = {}

/** Reads the properties of a message, whoever sent it. */
export const readProperties = ({ properties }: Message): TaskProperties => {
  if (properties.appId !== APP) return unknown
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {}
  return {
    id: text(properties.messageId ?? headers["id"]),
    task: text(properties.type ?? headers["task"]),
    generation: count(headers["generation"]) ?? 0,
    expires: millis(headers["expires"]),
    dueAt: count(properties.timestamp),
    waited: millis(headers["waited"])
  }
}

/** Bytes that are no text stay what they are. */
export const readBody = ({ content }: Message): string | Uint8Array =>
  isUtf8(content) ? content.toString("utf8") : Uint8Array.from(content)

const fits = (value: string): boolean =>
  value.length <= PROPERTY_BYTES / 3 || Buffer.byteLength(value) <= PROPERTY_BYTES

const propertiesOf = (
  { dueAt: due, expires, generation = 0, id, task, waited }: TaskProperties,
  reason?: string
): Options.Publish => {
  const headers: Record<string, unknown> = {}
  const properties: Options.Publish = {
    persistent: true,
    mandatory: true,
    contentType: "application/json",
    appId: APP,
    headers
  }
  if (id !== undefined && fits(id)) properties.messageId = id
  else if (id !== undefined) headers["id"] = id
  if (task !== undefined && fits(task)) properties.type = task
  else if (task !== undefined) headers["task"] = task
  // what is longer is read by nobody
  if (due !== undefined) properties.timestamp = Math.min(Math.ceil(due), Number.MAX_SAFE_INTEGER)
  if (generation !== 0) headers["generation"] = generation
  if (expires !== undefined) headers["expires"] = expires
  if (waited !== undefined) headers["waited"] = waited
  if (reason !== undefined) headers["reason"] = reason
  return properties
}

/** A task's message. */
export const fromEnvelope = (
  { body, delayMillis, expiresMillis, generation, id, queue, task }: Envelope,
  now: number
): OutgoingMessage => ({
  queue,
  delayMillis,
  content: Buffer.from(body),
  properties: propertiesOf({ id, task, generation, expires: expiresMillis, dueAt: now + delayMillis })
})

/** A message that was delivered, to be sent once more: its bytes, and what of its properties is this library's. */
export const fromDelivered = (
  message: Message,
  to: {
    readonly queue: string
    readonly delayMillis: number
    readonly due?: number | undefined
    readonly waited?: number | undefined
    /** Why it was rejected. */
    readonly reason?: string | undefined
    readonly body?: string | undefined
  }
): OutgoingMessage => {
  const head = readProperties(message)
  return {
    queue: to.queue,
    delayMillis: to.delayMillis,
    content: to.body === undefined ? message.content : Buffer.from(to.body),
    properties: propertiesOf({ ...head, dueAt: to.due ?? head.dueAt, waited: to.waited }, to.reason)
  }
}
