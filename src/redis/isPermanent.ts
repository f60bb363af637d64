/** Distinguishes errors that would fail every repetition of a call from transient ones. */
import { ArgumentTooLarge, CorruptKey } from "./RedisStoreError.ts"

/**
 * What stands before the code in the error of a script: the form since Redis 7, and the one before. The rest of a
 * message may hold anything, such as a caller's id.
 */
const PREFIX = /^(?:ERR )?(?:Error running script \(call to \w+\): )?(?:@?user_script: ?\d+: )*-?(?:ERR )?/
/** A wrong password, a missing permission, a key of another kind, an argument that is larger than the server takes. */
const PERMANENT =
  /^(?:NOAUTH|WRONGPASS|NOPERM|CORRUPT|WRONGTYPE|CROSSSLOT)\b|^unknown command|^Unknown Redis command|^Protocol error: invalid bulk length/
/** The server loads, is busy, full or read-only for now, or stops a script; or a cluster changes. */
const TRANSIENT =
  /^(?:LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|READONLY|MISCONF|NOREPLICAS|OOM|UNKILLABLE|NOSCRIPT)\b|^Script killed/
/** A script that fails in any other way fails because of what a key holds. */
const OF_SCRIPT = /Error (?:running|compiling) script|user_script|script: /

const messageOf = (error: unknown): string => {
  const cause = (error as { readonly cause?: unknown } | undefined)?.cause ?? error
  return cause instanceof Error ? cause.message : String(cause)
}

/** Whether the server is a replica, which refuses writes. */
export const isReadOnly = (error: unknown): boolean =>
  messageOf(error).replace(PREFIX, "").startsWith("READONLY")

/** Returns whether repeating the call cannot help. */
export const isPermanent = (error: unknown): boolean => {
  if (error instanceof CorruptKey || error instanceof ArgumentTooLarge) return true
  const message = messageOf(error)
  const code = message.replace(PREFIX, "")
  return !TRANSIENT.test(code) && (PERMANENT.test(code) || OF_SCRIPT.test(message))
}
