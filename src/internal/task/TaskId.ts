/** Makes task ids: UUIDs of version 7, which lie next to each other in an index when they are made together. */
import { createHash, randomUUID } from "node:crypto"

let lastMillis = -1
let lastPrefix = ""

/** Returns the first part of the ids of a millisecond, in which many may be made. */
const prefixOf = (millis: number): string => {
  if (millis === lastMillis) return lastPrefix
  const time = Math.max(0, Math.floor(millis)).toString(16).padStart(12, "0")
  lastMillis = millis
  lastPrefix = `${time.slice(0, 8)}-${time.slice(8, 12)}-7`
  return lastPrefix
}

/** Makes the id that follows from a text: the same for the same text. It has the form of a UUID of version 8. */
export const derive = (text: string): string => {
  const hex = createHash("sha256").update(text).digest("hex")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** Makes an incarnation, which tells one enqueue of an id from another. */
export const makeIncarnation = (): string => randomUUID().slice(24)

/** Makes an id for a time in epoch milliseconds. Node generates the random bits, at a tenth of the cost of v7 libraries. */
export const make = (millis: number): string => prefixOf(millis) + randomUUID().slice(15)
