/**
 * What options may be. A value out of range is a programmer's error: these throw, with a message that says what is
 * allowed, where a task is made; inside an effect or a layer that is a defect.
 */
import { DateTime, Duration, Option } from "effect"

const refuse = (what: string, allowed: string, given: unknown): never => {
  // JSON has no words for NaN, and none for a bigint
  const shown = typeof given === "number" || typeof given === "bigint" ? given : JSON.stringify(given)
  throw new RangeError(`${what} must be ${allowed}, but is ${shown}`)
}

/** A whole number of at least `min`, at most `max`. */
export const wholeNumber = (
  what: string,
  value: number,
  min: number,
  max = Number.MAX_SAFE_INTEGER
): number =>
  Number.isSafeInteger(value) && value >= min && value <= max
    ? value
    : refuse(
        what,
        max === Number.MAX_SAFE_INTEGER
          ? `a whole number from ${min} on`
          : `a whole number from ${min} to ${max}`,
        value
      )

/** A finite number above zero. */
export const positiveNumber = (what: string, value: number): number =>
  Number.isFinite(value) && value > 0 ? value : refuse(what, "a number above zero", value)

/** A text that is not empty, of at most `max` characters, without lone surrogates: no store would keep those. */
export const text = (what: string, value: string, max = 255): string =>
  typeof value === "string" && value.length > 0 && value.length <= max && value.isWellFormed()
    ? value
    : refuse(what, `a text of 1 to ${max} characters, without lone surrogates`, value)

/** A text that matches the pattern, which `allowed` describes. */
export const matchingText = (what: string, value: string, pattern: RegExp, allowed: string): string =>
  typeof value === "string" && pattern.test(value) ? value : refuse(what, allowed, value)

const duration = (what: string, input: Duration.Input, allowed: string): Duration.Duration => {
  const decoded = Duration.fromInput(input)
  return Option.isSome(decoded) ? decoded.value : refuse(what, allowed, input)
}

/** A finite duration from zero on. */
export const nonNegativeDuration = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a finite duration from zero on"
  const value = duration(what, input, allowed)
  return Duration.isFinite(value) && !Duration.isNegative(value) ? value : refuse(what, allowed, input)
}

/** A finite duration above zero. */
export const positiveDuration = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a finite duration above zero"
  const value = duration(what, input, allowed)
  return Duration.isFinite(value) && Duration.isPositive(value) ? value : refuse(what, allowed, input)
}

/** A duration above zero; an infinite one is `undefined`: for ever. */
export const positiveOrInfinite = (what: string, input: Duration.Input): Duration.Duration => {
  const allowed = "a duration above zero, or Duration.infinity"
  const value = duration(what, input, allowed)
  return Duration.isPositive(value) ? value : refuse(what, allowed, input)
}

/** A moment. */
export const dateTime = (what: string, input: DateTime.DateTime.Input): DateTime.DateTime => {
  const made = DateTime.make(input)
  return Option.isSome(made) ? made.value : refuse(what, "a date", input)
}
