/** One line that tells a person what an unknown value is, for the messages of errors. */
export const describe = (u: unknown): string => {
  if (u instanceof Error) return u.message.length > 0 ? `${u.name}: ${u.message}` : u.name
  if (typeof u === "string") return u
  try {
    return JSON.stringify(u) ?? String(u)
  } catch {
    return String(u)
  }
}
