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

/** One line that tells a person what an unknown value is, for the messages of errors. */
export const describe = (u: unknown): string => {
  if (u instanceof Error) return [u.name, ...messagesOf(u)].join(": ")
  if (typeof u === "string") return u
  try {
    return JSON.stringify(u) ?? String(u)
  } catch {
    return String(u)
  }
}
