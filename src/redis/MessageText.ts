/**
 * A message as it is stored: a line of fields divided by blanks, which the scripts read, and its body.
 *
 * The fields are those of the task that it is of: id, name, generation, and milliseconds until it expires, if it does.
 */
import { Effect, Exit } from "effect"
import type { Delivery, Envelope } from "../BrokerDriver.ts"
import * as Record from "./RecordText.ts"
import { millis } from "./ScriptRunner.ts"

/** To the text. */
export const encode = ({ body, expiresMillis, generation = 0, id, task }: Envelope): string =>
  `${Record.encode(id)} ${Record.encode(task)} ${generation} ${millis(expiresMillis)}\n${body}`

/** What a text says of its message. */
export type Parsed = Pick<Delivery, "id" | "task" | "generation" | "body">

/** No number is longer than a program can hold. */
const HEAD = /^(\S+) (\S+) (\d{1,15}) (-?\d{0,15})$/

/** From the text; foreign bytes are all body. */
export const decode = (text: string): Parsed => {
  const end = text.indexOf("\n")
  const [, first = "", second = "", generation] = HEAD.exec(text.slice(0, Math.max(0, end))) ?? []
  const id = Record.decode(first)
  const task = Record.decode(second)
  return generation === undefined || id === undefined || task === undefined
    ? { id: undefined, task: undefined, generation: undefined, body: text }
    : { id, task, generation: Number(generation), body: text.slice(end + 1) }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The same of bytes in hexadecimal, which may be no text. */
export const decodeHex = (hex: string): Parsed => {
  const bytes = Uint8Array.from(Buffer.from(hex, "hex"))
  const text = Effect.runSyncExit(Effect.try(() => utf8.decode(bytes)))
  if (Exit.isSuccess(text)) return decode(text.value)
  const end = bytes.indexOf(10)
  const head = decode(Buffer.from(bytes.subarray(0, end + 1)).toString())
  return { ...head, body: head.id === undefined ? bytes : bytes.slice(end + 1) }
}
