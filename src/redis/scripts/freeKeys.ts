/** Frees idempotency keys that may lie in any shard. */
import { Array as Arr, Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"

const lua = /* lua */ `
for i = 1, #ARGV, 2 do
  local entry = KEYS[1] .. ':key:' .. ARGV[i]
  if redis.call('GET', entry) == ARGV[i + 1] then redis.call('DEL', entry) end
end
`

/** Makes the operation. It takes pairs of a key and its holder; a key that another holder has stays. */
export const freeKeys = ({ keyspace, run }: ScriptRunner) => {
  const script = Script.make(lua)
  return (keysAndHolders: ReadonlyArray<string>): Effect.Effect<void, RedisError> =>
    Effect.forEach(
      Arr.chunksOf(keysAndHolders, 2),
      ([key, holder]) => run(script, keyspace.shardOf(key), [key, holder!]),
      { concurrency: 16, discard: true }
    )
}
