/** What a call to the store fails with. */
import { Data } from "effect"
import { RedisError } from "effect/persistence/Redis"

/** A key holds something that the store did not write: it was edited by hand. */
export class CorruptKey extends Data.TaggedError("CorruptKey")<{
  readonly key: string
  readonly field: string
  /** The type and the size of what the field holds; not the value, which may be a secret. */
  readonly holds: string
}> {
  override get message(): string {
    return `the key ${this.key} is corrupt: ${this.field} holds ${this.holds}`
  }
}

/** A `RedisError` whose message is that of its cause; a client's own error has none. */
export class CallFailed extends RedisError {
  override readonly name = "RedisError"

  static of(error: RedisError): CallFailed {
    return error instanceof CallFailed ? error : new CallFailed({ cause: error.cause })
  }

  override get message(): string {
    const { cause } = this
    if (!(cause instanceof Error)) return String(cause)
    if (cause.message !== "") return cause.message
    return "code" in cause ? String(cause.code) : cause.name
  }
}

/** A call took longer than `callTimeout`. */
export class CallTimedOut extends CallFailed {}

/** An argument of a failed call is larger than the server takes: it closes the connection while the client still writes. */
export class ArgumentTooLarge extends CallFailed {
  readonly bytes: number
  readonly limit: number

  constructor(bytes: number, limit: number, cause: unknown) {
    super({ cause })
    this.bytes = bytes
    this.limit = limit
  }

  override get message(): string {
    return `an argument has ${this.bytes} bytes, and the server's proto-max-bulk-len is ${this.limit}: ${super.message}`
  }
}

/** Tells a call that the server cannot take from one that failed in an outage. */
export const explainTooLarge = (
  limit: number | undefined
): ((error: CallFailed, args: ReadonlyArray<string>) => CallFailed) =>
  limit === undefined
    ? (error) => error
    : (error, args) => {
        const bytes = args.reduce((most, arg) => Math.max(most, Buffer.byteLength(arg)), 0)
        return bytes > limit ? new ArgumentTooLarge(bytes, limit, error.cause) : error
      }

/** Whether the server denied a command to its user: outside of a script, or in one. */
const isDenied = ({ message }: CallFailed): boolean =>
  /^NOPERM\b|^(?:ERR )?(?:The user executing the script can't|User \S+ has no permissions)/.test(message)

/** Adds to the error of a denied call what the user of a store needs. */
export const explainDenial =
  (prefix: string) =>
  (error: CallFailed): CallFailed =>
    isDenied(error)
      ? new CallFailed({
          cause: new Error(
            `${error.message}. The Redis user of a store with the prefix "${prefix}" needs the keys ~{${prefix}:*,` +
              ` the channels &${prefix}:process:*, and the commands that docs/redis.md lists`,
            { cause: error.cause }
          )
        })
      : error

/** What a call can fail with. */
export type RedisStoreError = RedisError | CorruptKey
