/** A message on its way: what stands in its headers, and how it is told apart from what others have sent. */
import { isUtf8 } from "node:buffer"
import type { Message, MessageProperties, Options } from "amqplib"
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

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)
const whole = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined

/** Reads the headers of a message, whoever sent it. */
export const headOf = ({ properties }: Message): Head => {
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {}
  return {
    id: text(headers["id"]),
    task: text(headers["task"]),
    generation: whole(headers["generation"]),
    expires: whole(headers["expires"]),
    due: whole(headers["due"])
  }
}

/** Bytes that are no text stay what they are. */
export const bodyOf = ({ content }: Message): string | Uint8Array =>
  isUtf8(content) ? content.toString("utf8") : Uint8Array.from(content)

const sending = { persistent: true, mandatory: true, contentType: "application/json" }

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

/** What the server writes into the headers, or reads from them. */
const OF_SERVER = /^(?:x-|B?CC$)/

const ownHeaders = ({ headers }: MessageProperties): Record<string, unknown> =>
  Object.fromEntries(Object.entries(headers ?? {}).filter(([name]) => !OF_SERVER.test(name)))

/** A message that was delivered, to be sent once more; whatever its sender wrote is kept. */
export const copyOf = (
  { content, properties }: Message,
  to: {
    readonly queue: string
    readonly delayMillis: number
    readonly headers: Readonly<Record<string, unknown>>
    readonly body?: string | undefined
  }
): Parcel => {
  const { clusterId: _, expiration: __, userId: ___, ...kept } = properties
  return {
    queue: to.queue,
    delayMillis: to.delayMillis,
    content: to.body === undefined ? content : Buffer.from(to.body),
    properties: { ...kept, ...sending, headers: { ...ownHeaders(properties), ...to.headers } }
  }
}
