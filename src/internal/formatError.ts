/** Formats unknown errors for messages. */
import { errorCause, isError } from "./errorText.ts"

/** Wrapped errors to follow, at most. */
const MAX_CAUSES = 5

/** Returns the messages of an error and of the errors that it wraps, from the outermost, without repetitions. */
const messagesOf = (error: Error): ReadonlyArray<string> => {
  const messages: Array<string> = []
  let next: unknown = error
  for (let depth = 0; depth < MAX_CAUSES && typeof next === "object" && next !== null; depth++) {
    const { message } = next as { readonly message?: unknown }
    if (typeof message === "string" && message !== "" && !messages.some((other) => other.includes(message))) {
      messages.push(message)
    }
    next = errorCause(next)
  }
  return messages
}

/** The formats by preference: each of them throws for some values. */
const formats: ReadonlyArray<(u: unknown) => string> = [
  (u) => {
    if (isError(u)) return [u.name, ...messagesOf(u)].join(": ")
    return typeof u === "string" ? u : (JSON.stringify(u) ?? String(u))
  },
  String
]

/** Formats an unknown value as one line. Never throws. */
export const formatError = (u: unknown): string => {
  for (const format of formats) {
    try {
      return format(u)
    } catch {
      // the next format may do
    }
  }
  return typeof u
}
