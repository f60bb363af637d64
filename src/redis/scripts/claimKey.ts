/** Claims an idempotency key for a holder. */
import type { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"

const lua = /* lua */ `
local entry = KEYS[1] .. ':key:' .. ARGV[1]
if redis.call('SET', entry, ARGV[2], 'NX') then return ARGV[2] end
return redis.call('GET', entry)
`

/** Makes the operation, which returns the holder of the key. */
export const claimKey = ({ keyspace, run }: ScriptRunner) => {
  const script = Script.make<string>(lua)
  return (key: string, holder: string): Effect.Effect<string, RedisError> =>
    run(script, keyspace.shardOf(key), [key, holder])
}
