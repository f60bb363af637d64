/**
 * A message as it is stored: a head line, which the scripts read, and the body.
 *
 * The fields of the head are divided by blanks: the task's id, its name, its generation, and its incarnation, `-` for an
 * empty one.
 */
import { Effect, Exit } from "effect"
import type { Delivery, Envelope } from "../BrokerDriver.ts"
import * as FieldText from "./FieldText.ts"
import * as IncarnationText from "./IncarnationText.ts"

/** Encodes a message. */
export const encode = ({ body, generation = 0, id, incarnation = "", task }: Envelope): string =>
  `${FieldText.encode(id)} ${FieldText.encode(task)} ${generation} ${IncarnationText.encode(incarnation)}\n${body}`

/** The parts of a delivery that a text holds. */
export type Decoded = Pick<Delivery, "id" | "task" | "incarnation" | "generation" | "body" | "oversizedBytes">

/** A claim returns this, the size and a line break in place of the body of an oversized message, and then its head. */
export const OVERSIZED = "oversized "

const OVERSIZED_TEXT = new RegExp(`^${OVERSIZED}(\\d+)\n`)

/** A number has at most 15 digits, so that it is a safe integer. */
const HEAD = /^(\S+) (\S+) (\d{1,15}) (-|[0-9A-Za-z]{1,32})$/

/** Decodes a message. A text without a valid head is all body. */
export const decode = (text: string): Decoded => {
  const oversized = OVERSIZED_TEXT.exec(text)
  if (oversized === null) return decodeWhole(text)
  return { ...decodeWhole(text.slice(oversized[0].length)), body: "", oversizedBytes: Number(oversized[1]) }
}

const decodeWhole = (text: string): Decoded => {
  const end = text.indexOf("\n")
  const [, first = "", second = "", generation, incarnation = ""] =
    HEAD.exec(text.slice(0, Math.max(0, end))) ?? []
  const id = FieldText.decode(first)
  const task = FieldText.decode(second)
  return generation === undefined || id === undefined || task === undefined
    ? { id: undefined, task: undefined, incarnation: undefined, generation: undefined, body: text }
    : {
        id,
        task,
        incarnation: IncarnationText.decode(incarnation),
        generation: Number(generation),
        body: text.slice(end + 1)
      }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Decodes a message from its bytes in hexadecimal. A body that is not UTF-8 is kept as bytes. */
export const decodeHex = (hex: string): Decoded => {
  const bytes = Uint8Array.from(Buffer.from(hex, "hex"))
  const text = Effect.runSyncExit(Effect.try(() => utf8.decode(bytes)))
  if (Exit.isSuccess(text)) return decode(text.value)
  const end = bytes.indexOf(10)
  const head = decode(Buffer.from(bytes.subarray(0, end + 1)).toString())
  return { ...head, body: head.id === undefined ? bytes : bytes.slice(end + 1) }
}
