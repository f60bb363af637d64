/** Forgets tasks: removes final records, marks the others, and frees their keys at once. */
import { Effect, identity } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { freeKeys } from "./freeKeys.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { recordScript } from "./lib/recordScript.ts"

/**
 * Returns the keys that may lie in other shards, each with its holder, to be freed at once. A sweep frees those that are not.
 */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    `
local keysInOtherShards = {}
while position < #ARGV do
  local record = findRecord(nextText())
  if record then
    if record[KEY_CLAIM] ~= '-' then
      keysInOtherShards[#keysInOtherShards + 1] = record[KEY]
      keysInOtherShards[#keysInOtherShards + 1] = record[KEY_CLAIM] .. ' ' .. record.id
    end
    if TERMINAL[record[STATE]] then
      -- F1
      removeRecord(record)
    else
      -- F2
      freeKey(record, now)
      record[KEY], record[KEY_CLAIM], record[ENDED] = '-', '-', 'Forgotten'
      hintEnd(record)
      saveRecord(record)
    end
  end
end
sendHints()
return keysInOtherShards
`
  )

/** Makes the operation. */
export const forget = (runner: ScriptRunner): BackendDriver<RedisStoreError>["forget"] => {
  const { clustered, run, sharded } = runner
  const script = Script.make<ReadonlyArray<string>>(lua(clustered))
  const free = freeKeys(runner)
  return (ids) =>
    Effect.asVoid(
      sharded(ids, identity, (shard, some) => Effect.as(Effect.flatMap(run(script, shard, some), free), some))
    )
}
