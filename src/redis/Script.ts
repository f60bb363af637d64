/** A Lua script, known to the server by the hash of its text. */
import { createHash } from "node:crypto"
import * as Redis from "effect/persistence/Redis"

/** A script that takes the key prefix of a shard and texts, and returns an `A`. */
export interface Script<A> {
  /** Runs the script by its text. */
  readonly loading: Redis.Script<{ params: [base: string, args: ReadonlyArray<string>]; result: A }>
  /** Runs the script on a server that knows it. */
  readonly sha1: string
}

/** Makes a script of its Lua text. The reply is not checked against `A`. */
export const make = <A = null>(lua: string): Script<A> => ({
  loading: Redis.script((base: string, args: ReadonlyArray<string>) => [base, ...args], {
    lua,
    numberOfKeys: 1
  }).withReturnType<A>(),
  sha1: createHash("sha1").update(lua).digest("hex")
})
