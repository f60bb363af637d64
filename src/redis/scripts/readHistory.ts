/** Reads the histories of tasks. */
import { Effect, identity } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { preludeLua } from "./lib/prelude.ts"

/** A key of another kind holds no history. */
const lua = `${preludeLua}
local keys = {}
for i, id in ipairs(ARGV) do keys[i] = base .. ':history:' .. id end
return redis.call('MGET', unpack(keys))
`

/** Makes the operation. */
export const readHistory = ({ run, sharded }: ScriptRunner) => {
  const script = Script.make<ReadonlyArray<string | null>>(lua)
  return (ids: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string | undefined>, RedisError> =>
    sharded(ids, identity, (shard, some) =>
      Effect.map(run(script, shard, some), (found) => found.map((history) => history ?? undefined))
    )
}
