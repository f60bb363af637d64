/**
 * A Lua script, known to the server by the hash of its text.
 *
 * A script touches any keys of its shard, and declares two others, neither of which exists: they tell a cluster the slot. So
 * no script runs while that slot moves to another node, when it would find some keys here and the rest there:
 *
 * - The node that the slot leaves redirects (ASK) a call whose declared keys it does not have. If one of them existed, it would
 *   run the script, which would fail midway at the first key that has left, after other writes.
 * - The node to which the slot moves refuses a redirected call (TRYAGAIN) whose declared keys, if there are several, it does not
 *   have. With a single one it would run the script, which would miss all keys that have not come yet.
 */
import { createHash } from "node:crypto"
import * as Redis from "effect/persistence/Redis"

/** A script that takes the key prefix of a shard and texts, and returns an `A`. */
export interface Script<A> {
  /** Runs the script by its text. */
  readonly loading: Redis.Script<{
    params: [base: string, second: string, args: ReadonlyArray<string>]
    result: A
  }>
  /** Runs the script on a server that knows it. */
  readonly sha1: string
}

/** Makes a script of its Lua text. The reply is not checked against `A`. */
export const make = <A = null>(lua: string): Script<A> => ({
  loading: Redis.script(
    (base: string, second: string, args: ReadonlyArray<string>) => [base, second, ...args],
    {
      lua,
      numberOfKeys: 2
    }
  ).withReturnType<A>(),
  sha1: createHash("sha1").update(lua).digest("hex")
})
