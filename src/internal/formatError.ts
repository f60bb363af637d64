/** Formats the errors of stores for messages. What a handler failed with is named by `errorText` instead. */
import { errorCause, errorMessage, errorName, isError } from "./errorText.ts"

/** Wrapped errors to follow, at most. */
const MAX_CAUSES = 5
/** Bytes of one message, at most. */
const MAX_MESSAGE = 4 * 1024

/** The user and the password of a URL. */
const USER_INFO = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s/?#]*@/gi
/** The value of a parameter that is a password. */
const SECRET_PARAMETER = /([?&;](?:\w*password|passwd|pass|pwd|secret|token)=)[^&;\s"']*/gi

/** Removes the credentials of the URLs in a text. */
const withoutCredentials = (text: string): string =>
  text.replace(USER_INFO, "$1").replace(SECRET_PARAMETER, "$1<redacted>")

/** Returns the messages of an error and of the errors that it wraps, from the outermost, without repetitions. */
const messagesOf = (error: unknown): ReadonlyArray<string> => {
  const messages: Array<string> = []
  let next = error
  for (let depth = 0; depth < MAX_CAUSES && next !== undefined; depth++) {
    const message = errorMessage(next, MAX_MESSAGE)
    if (message !== "" && !messages.some((other) => other.includes(message))) messages.push(message)
    next = errorCause(next)
  }
  return messages
}

/** Formats an unknown value as one line, without the credentials of URLs. Never throws. */
export const formatError = (u: unknown): string =>
  withoutCredentials([...(isError(u) ? [errorName(u)] : []), ...messagesOf(u)].join(": ")) || typeof u
