/**
 * Composes a delay of queues, one for each power of two milliseconds.
 *
 * A message passes through the queues of the powers that its delay is the sum of, the longest first. All messages of one
 * queue wait equally long, so no message waits behind one that is due later. The routing key says which queues are still
 * ahead: one word for each power, `1` or `0`, the highest first, and then the word of the destination queue.
 */

/** The exponents of the shortest and the longest wait: 32 milliseconds and about 25 days, the server's longest TTL. */
export const LOWEST_EXPONENT = 5
const HIGHEST_EXPONENT = 31

/** A rounded delay is longer by at most this, or by 1/128 of the delay: fewer powers mean fewer queues to pass. */
const SLACK_MILLIS = 64
const SLACK_FRACTION = 128

/** The longest delay. */
export const MAX_DELAY_MILLIS = 2 ** (HIGHEST_EXPONENT + 1) - 2 ** LOWEST_EXPONENT

/** All exponents, the highest first. */
export const exponents: ReadonlyArray<number> = Array.from(
  { length: HIGHEST_EXPONENT - LOWEST_EXPONENT + 1 },
  (_, i) => HIGHEST_EXPONENT - i
)

/** Rounds a delay up to a sum of as few powers of two as the slack allows; never shorter than asked for. */
export const roundDelay = (millis: number): number => {
  const limit = millis + Math.max(SLACK_MILLIS, millis / SLACK_FRACTION)
  for (const exponent of exponents) {
    const step = 2 ** exponent
    const rounded = Math.ceil(millis / step) * step
    if (rounded < limit && rounded <= MAX_DELAY_MILLIS) return rounded
  }
  return MAX_DELAY_MILLIS
}

const contains = (rounded: number, exponent: number): boolean => Math.floor(rounded / 2 ** exponent) % 2 === 1

/** Returns the exponents of the powers that a rounded delay is the sum of, the highest first. */
export const exponentsOf = (rounded: number): ReadonlyArray<number> =>
  exponents.filter((exponent) => contains(rounded, exponent))

/** Returns the routing key of a message with that rounded delay; `queueWord` is the destination's word. */
export const routingKey = (rounded: number, queueWord: string): string =>
  [...exponents.map((exponent) => (contains(rounded, exponent) ? "1" : "0")), queueWord].join(".")

/** Returns a topic pattern for keys whose word for `exponent` is `1` (or `0`), and whose last word is `queueWord`. */
export const bindingPattern = (
  exponent: number | undefined,
  hasExponent: boolean,
  queueWord: string
): string =>
  [...exponents.map((other) => (other === exponent ? (hasExponent ? "1" : "0") : "*")), queueWord].join(".")
