/**
 * Checks of what comes out of the server. What does not fit is an error that says where it lies.
 */
import { Data } from "effect"
import { RedisError } from "effect/persistence/Redis"

/** Something in the store is not as the store writes it: a key that was edited by hand. */
export class CorruptKey extends Data.TaggedError("CorruptKey")<{
  readonly key: string
  readonly field: string
  readonly value: unknown
}> {
  override get message(): string {
    const shown = String(JSON.stringify(this.value) ?? this.value).slice(0, 80)
    return `the key ${this.key} is corrupt: ${this.field} holds ${shown}`
  }
}

/** A call that failed. A client's own error has no message, and a person is told nothing by its name. */
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

/** What a call can fail with. */
export type StoreError = RedisError | CorruptKey

/** Reads the fields of one key, as a script answered them; a field that does not fit throws `CorruptKey`. */
export class HashFields {
  readonly key: string
  private readonly names: ReadonlyArray<string>
  private readonly values: ReadonlyArray<string | null>

  constructor(key: string, names: ReadonlyArray<string>, values: ReadonlyArray<string | null>) {
    this.key = key
    this.names = names
    this.values = values
  }

  fail(at: number): never {
    throw new CorruptKey({ key: this.key, field: this.names[at] ?? `${at}`, value: this.values[at] })
  }

  textOrNull(at: number): string | null {
    return this.values[at] ?? null
  }

  text(at: number): string {
    return this.values[at] ?? this.fail(at)
  }

  integer(at: number): number {
    const number = Number(this.values[at] ?? 0)
    return Number.isSafeInteger(number) ? number : this.fail(at)
  }
}
