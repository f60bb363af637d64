/**
 * Checks options. A value out of range is a programmer's error: the checks throw a `RangeError` with the allowed
 * values where a task is made; inside an effect or a layer the error is a defect.
 */
import { DateTime, Duration, Option } from "effect"

const reject = (what: string, allowed: string, given: unknown): never => {
  // JSON represents neither NaN nor a bigint
  const shown = typeof given === "number" || typeof given === "bigint" ? given : JSON.stringify(given)
  throw new RangeError(`${what} must be ${allowed}, but is ${shown}`)
}

/** Checks for a whole number from `min` to `max`. */
export const wholeNumber = (
  what: string,
  value: number,
  min: number,
  max = Number.MAX_SAFE_INTEGER
): number =>
  Number.isSafeInteger(value) && value >= min && value <= max
    ? value
    : reject(
        what,
        max === Number.MAX_SAFE_INTEGER
          ? `a whole number from ${min} on`
          : `a whole number from ${min} to ${max}`,
        value
      )

/** Checks for a finite number above zero. */
export const positiveNumber = (what: string, value: number): number =>
  Number.isFinite(value) && value > 0 ? value : reject(what, "a number above zero", value)

/** Describes what `isText` accepts. */
export const allowedText = (max: number): string =>
  `a text of 1 to ${max} characters, without lone surrogates`

/** Whether a value is a text of 1 to `max` characters without lone surrogates, which no store would keep. */
export const isText = (value: unknown, max: number): value is string =>
  typeof value === "string" && value.length > 0 && value.length <= max && value.isWellFormed()

/** Checks for a text that `isText` accepts. */
export const text = (what: string, value: string, max = 255): string =>
  isText(value, max) ? value : reject(what, allowedText(max), value)

/** Checks for a text that matches the pattern, which `allowed` describes. */
export const matchingText = (what: string, value: string, pattern: RegExp, allowed: string): string =>
  typeof value === "string" && pattern.test(value) ? value : reject(what, allowed, value)

/** Checks for a text that the decoder accepts, and returns what it decodes to; `allowed` describes such a text. */
export const decodedText = <A>(
  what: string,
  value: string,
  decode: (text: string) => Option.Option<A>,
  allowed: string
): A => Option.getOrElse(decode(value), () => reject(what, allowed, value))

const duration = (what: string, input: Duration.Input, allowed: string): Duration.Duration => {
  // Duration takes NaN for zero
  const decoded = Number.isNaN(input) ? Option.none() : Duration.fromInput(input)
  return Option.isSome(decoded) ? decoded.value : reject(what, allowed, input)
}

/** Checks for a finite duration from zero on. */
export const nonNegativeDuration = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a finite duration from zero on"
  const value = duration(what, input, allowed)
  return Duration.isFinite(value) && !Duration.isNegative(value) ? value : reject(what, allowed, input)
}

/** Checks for a finite duration. One below zero, which comes from a computation with times, is zero. */
export const durationOrZero = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a finite duration"
  const value = duration(what, input, allowed)
  if (Duration.isNegative(value)) return Duration.zero
  return Duration.isFinite(value) ? value : reject(what, allowed, input)
}

/** Checks for a finite duration above zero. */
export const positiveDuration = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a finite duration above zero"
  const value = duration(what, input, allowed)
  return Duration.isFinite(value) && Duration.isPositive(value) ? value : reject(what, allowed, input)
}

/** Checks for a duration from zero on, which may be infinite. */
export const nonNegativeOrInfinite = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a duration from zero on, or Duration.infinity"
  const value = duration(what, input, allowed)
  return Duration.isNegative(value) ? reject(what, allowed, input) : value
}

/** Checks for a duration above zero, which may be infinite. */
export const positiveOrInfinite = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a duration above zero, or Duration.infinity"
  const value = duration(what, input, allowed)
  return Duration.isPositive(value) ? value : reject(what, allowed, input)
}

/** Checks for a date. */
export const dateTime = (what: string, input: DateTime.DateTime.Input): DateTime.DateTime => {
  const made = DateTime.make(input)
  return Option.isSome(made) ? made.value : reject(what, "a date", input)
}
