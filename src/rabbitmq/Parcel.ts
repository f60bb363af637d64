/** A message on its way: what stands in its headers, and how it is told apart from what others have sent. */
import { isUtf8 } from "node:buffer"
import type { Message, Options } from "amqplib"
import type { Envelope } from "../BrokerDriver.ts"

/** A message to be published. */
export interface Parcel {
  /** The queue for which it is, in the end. */
  readonly queue: string
  readonly delayMillis: number
  readonly content: Buffer
  readonly properties: Options.Publish
}

/** What this library writes into a message's headers. */
export interface Head {
  readonly id: string | undefined
  readonly task: string | undefined
  readonly generation: number | undefined
  readonly expires: number | undefined
  /** When the message became or becomes due: milliseconds, by the clock of whoever sent it. */
  readonly due: number | undefined
}

/** Longer ones are not ours. */
const LONGEST_TEXT = 1000

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value.length <= LONGEST_TEXT ? value : undefined
const count = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined
const millis = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined

/** Reads the headers of a message, whoever sent it. */
export const headOf = ({ properties }: Message): Head => {
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {}
  return {
    id: text(headers["id"]),
    task: text(headers["task"]),
    generation: count(headers["generation"]),
    expires: millis(headers["expires"]),
    due: millis(headers["due"])
  }
}

/** Bytes that are no text stay what they are. */
export const bodyOf = ({ content }: Message): string | Uint8Array =>
  isUtf8(content) ? content.toString("utf8") : Uint8Array.from(content)

const sending = { persistent: true, mandatory: true, contentType: "application/json" }

const headersOf = (head: Head): Record<string, unknown> =>
  Object.fromEntries(Object.entries(head).filter(([, value]) => value !== undefined))

/** A task's message. */
export const ofEnvelope = (
  { body, delayMillis, expiresMillis, generation, id, queue, task }: Envelope,
  now: number
): Parcel => ({
  queue,
  delayMillis,
  content: Buffer.from(body),
  properties: {
    ...sending,
    headers: {
      id,
      task,
      due: now + delayMillis,
      ...(generation === undefined ? {} : { generation }),
      ...(expiresMillis === undefined ? {} : { expires: expiresMillis })
    }
  }
})

/** A message that was delivered, to be sent once more: its bytes, and what of its headers is this library's. */
export const copyOf = (
  message: Message,
  to: {
    readonly queue: string
    readonly delayMillis: number
    readonly due?: number | undefined
    /** Why it was rejected. */
    readonly reason?: string | undefined
    readonly body?: string | undefined
  }
): Parcel => {
  const head = headOf(message)
  return {
    queue: to.queue,
    delayMillis: to.delayMillis,
    content: to.body === undefined ? message.content : Buffer.from(to.body),
    properties: {
      ...sending,
      headers: {
        ...headersOf({ ...head, due: to.due ?? head.due }),
        ...(to.reason === undefined ? {} : { reason: to.reason })
      }
    }
  }
}
