/** Passes an idempotency key from one holder to another. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"

const lua = /* lua */ `
local entry = KEYS[1] .. ':key:' .. ARGV[1]
if redis.call('GET', entry) ~= ARGV[2] then return 0 end
redis.call('SET', entry, ARGV[3])
return 1
`

/** Makes the operation, which returns whether the key was held by `from`. */
export const passKey = ({ keyspace, run }: ScriptRunner) => {
  const script = Script.make<number>(lua)
  return (key: string, from: string, to: string): Effect.Effect<boolean, RedisError> =>
    Effect.map(run(script, keyspace.shardOf(key), [key, from, to]), (passed) => passed === 1)
}
