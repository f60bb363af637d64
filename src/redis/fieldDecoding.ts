/** Decodes what scripts return. What does not fit is a `CorruptKey` that names the key and the field. */
import { Effect } from "effect"
import { shapeOf } from "../internal/errorText.ts"
import { CorruptKey } from "./RedisStoreError.ts"

/** Decodes a reply; a decoder that throws fails the call with `CorruptKey`. */
export const decodeReply = <A>(decode: () => A): Effect.Effect<A, CorruptKey> =>
  Effect.try({
    try: decode,
    catch: (error) =>
      error instanceof CorruptKey ? error : new CorruptKey({ key: "", field: "", holds: shapeOf(error) })
  })

/** The fields of one hash, in the order in which a script returned them. A field that does not fit throws `CorruptKey`. */
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
    throw new CorruptKey({ key: this.key, field: this.names[at] ?? `${at}`, holds: shapeOf(this.values[at]) })
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
