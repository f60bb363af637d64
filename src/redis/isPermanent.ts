/**
 * Which errors would come again however often the call is repeated.
 */
import { CorruptKey } from "./fieldDecoding.ts"

/**
 * What stands in front of a code, where a script failed: as the server has it since 7, and as it had it before. The
 * rest of a message may hold anything, such as a caller's id.
 */
const HEAD = /^(?:ERR )?(?:Error running script \(call to \w+\): )?(?:@?user_script: ?\d+: )*-?(?:ERR )?/
/** A wrong password, no permission, a key of another kind. */
const PERMANENT =
  /^(?:NOAUTH|WRONGPASS|NOPERM|CORRUPT|WRONGTYPE|CROSSSLOT)\b|^unknown command|^Unknown Redis command/
/** What heals: the server loads, is busy, full or read only for now, stops a script, or a cluster changes. */
const PASSING =
  /^(?:LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|READONLY|MISCONF|NOREPLICAS|OOM|UNKILLABLE|NOSCRIPT)\b|^Script killed/
/** A script that fails in any other way fails on what a key holds. */
const OF_SCRIPT = /Error (?:running|compiling) script|user_script|script: /

const causeOf = (error: unknown): string => {
  const cause = (error as { readonly cause?: unknown } | undefined)?.cause ?? error
  return cause instanceof Error ? cause.message : String(cause)
}

/** A wrong password, no permission, a key of another kind, a script that fails on what a key holds. */
export const isPermanent = (error: unknown): boolean => {
  if (error instanceof CorruptKey) return true
  const text = causeOf(error)
  const code = text.replace(HEAD, "")
  return !PASSING.test(code) && (PERMANENT.test(code) || OF_SCRIPT.test(text))
}
