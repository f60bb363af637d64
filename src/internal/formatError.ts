/** Wrapped errors, at most. */
const DEEPEST = 5

/** What an error and those that it wraps say, from the outermost; nothing twice. */
const messagesOf = (error: Error): ReadonlyArray<string> => {
  const said: Array<string> = []
  let next: unknown = error
  for (let depth = 0; depth < DEEPEST && typeof next === "object" && next !== null; depth++) {
    const { cause, message } = next as { readonly cause?: unknown; readonly message?: unknown }
    if (typeof message === "string" && message !== "" && !said.some((other) => other.includes(message))) {
      said.push(message)
    }
    next = cause
  }
  return said
}

/** How a value is told, from the best way to the last: of some values one or the other throws. */
const ways: ReadonlyArray<(u: unknown) => string> = [
  (u) => {
    if (u instanceof Error) return [u.name, ...messagesOf(u)].join(": ")
    return typeof u === "string" ? u : (JSON.stringify(u) ?? String(u))
  },
  String
]

/** One line that tells a person what an unknown value is, for the messages of errors. Never throws. */
export const formatError = (u: unknown): string => {
  for (const way of ways) {
    try {
      return way(u)
    } catch {
      // the next one may do
    }
  }
  return typeof u
}
