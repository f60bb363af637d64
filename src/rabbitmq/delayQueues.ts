/**
 * How a delay is made of queues: one for each power of two, in which a message waits exactly that long.
 *
 * A message goes through the queues of the powers that its delay is the sum of, from the longest on. All messages of
 * a queue wait equally long, so none waits behind another that is due later. Which queues are still ahead stands in
 * its routing key: a word for each power, `1` or `0`, the highest first, and then the queue for which it is due.
 */

/** The exponents of the shortest and the longest: 32 milliseconds and some 25 days, the longest that the server takes. */
const LOWEST = 5
const HIGHEST = 31

/** A delay is so much longer than asked for at most, or a 128th of it: the fewer powers, the sooner it is counted. */
const SLACK_MILLIS = 64
const FINENESS = 128

/** The longest delay. */
export const MAX_DELAY_MILLIS = 2 ** (HIGHEST + 1) - 2 ** LOWEST

/** Exponents, the highest first. */
export const exponents: ReadonlyArray<number> = Array.from(
  { length: HIGHEST - LOWEST + 1 },
  (_, i) => HIGHEST - i
)

/** The shortest. */
export const LOWEST_EXPONENT = LOWEST

/** The delay that is kept: not shorter, hardly longer, and of as few powers of two as that allows. */
export const roundDelay = (millis: number): number => {
  const most = millis + Math.max(SLACK_MILLIS, millis / FINENESS)
  for (const exponent of exponents) {
    const step = 2 ** exponent
    const rounded = Math.ceil(millis / step) * step
    if (rounded < most && rounded <= MAX_DELAY_MILLIS) return rounded
  }
  return MAX_DELAY_MILLIS
}

const isIn = (rounded: number, exponent: number): boolean => Math.floor(rounded / 2 ** exponent) % 2 === 1

/** The exponents of the powers that a rounded delay is the sum of, the highest first. */
export const exponentsOf = (rounded: number): ReadonlyArray<number> =>
  exponents.filter((exponent) => isIn(rounded, exponent))

/** The routing key of a message with that delay, for a queue. */
export const routingKey = (rounded: number, word: string): string =>
  [...exponents.map((exponent) => (isIn(rounded, exponent) ? "1" : "0")), word].join(".")

/** Matches routing keys by whether they have one exponent, or none, and by their last word. */
export const bindingPattern = (exponent: number | undefined, has: boolean, word: string): string =>
  [...exponents.map((other) => (other === exponent ? (has ? "1" : "0") : "*")), word].join(".")
