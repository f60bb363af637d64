/**
 * What goes wrong with a server, and whether trying again may help. Nothing of the URL is in it, which may hold a
 * password.
 */
import { Data } from "effect"

/** A call to the server failed, or the connection did. */
export class RabbitError extends Data.TaggedError("RabbitError")<{
  readonly message: string
  /** The protocol's reply code, where the server gave one. */
  readonly code?: number | undefined
  /** What this library found by itself: a queue that took nothing, or was not there, or a name that cannot be. */
  readonly kind?: "not taken" | "unroutable" | "bad name" | undefined
  readonly cause?: unknown
}> {}

/** Of what the client library fails with. */
export const fromUnknown = (cause: unknown): RabbitError => {
  if (cause instanceof RabbitError) return cause
  const message = cause instanceof Error ? cause.message : String(cause)
  return new RabbitError({ message, code: codeOf(cause, message), cause })
}

/** A refused handshake has its code in the text alone. */
const codeOf = (cause: unknown, message: string): number | undefined => {
  const { code } = cause as { readonly code?: unknown }
  if (typeof code === "number") return code
  const found = /\b([345]\d\d) \([A-Z]+[-_][A-Z_-]+\)/.exec(message)
  return found === null ? undefined : Number(found[1])
}

/** INVALID-PATH, ACCESS-REFUSED, PRECONDITION-FAILED, NOT-ALLOWED. */
const PERMANENT: ReadonlySet<number | undefined> = new Set([402, 403, 406, 530])
/** A limit of connections or channels is not allowed to be passed, but is not always reached. */
const PASSING = /limit/

/** A wrong password, a virtual host that is not there, a queue of that name with other properties, a message too large. */
export const isPermanent = (error: unknown): boolean =>
  error instanceof RabbitError &&
  (error.kind === "bad name" || (PERMANENT.has(error.code) && !PASSING.test(error.message)))
