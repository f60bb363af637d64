/** Ends overdue tasks, and removes records, dead letters and workers that are past their retention. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { freeKeys } from "./freeKeys.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Returns the number of swept items, and then the keys of other shards that are to be freed, each with the id that held it. */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    lapseLua,
    `
local limit = nextNumber()
local function due(index)
  return redis.call('ZRANGEBYSCORE', base .. index, '-inf', now, 'LIMIT', 0, limit)
end
local swept = 0
for _, id in ipairs(due(':deadlines')) do
  local record = findRecord(id)
  if not record then
    redis.call('ZREM', base .. ':deadlines', id)
  elseif not endIfLapsed(record) then
    -- a reservation whose time is over, or a deadline that has moved
    local reservedUntil = not TERMINAL[record[STATE]] and tonumber(record[RESERVED_UNTIL])
    if reservedUntil and reservedUntil <= now then removeRecord(record) else setDeadline(record) end
  end
  swept = swept + 1
end
for _, id in ipairs(due(':letters-until')) do
  if not removeDeadLetter(id) then redis.call('ZREM', base .. ':letters-until', id) end
  swept = swept + 1
end
local workers = redis.call('HGETALL', base .. ':workers')
for i = 1, #workers, 2 do
  if tonumber(string.match(workers[i + 1], '^%d+ %d+ (%d+)') or '0') <= now then
    redis.call('HDEL', base .. ':workers', workers[i])
    swept = swept + 1
  end
end
local answer = { swept }
for _, member in ipairs(due(':foreign')) do
  redis.call('ZREM', base .. ':foreign', member)
  local ok, pair = pcall(cjson.decode, member)
  if ok and type(pair) == 'table' and type(pair[1]) == 'string' and type(pair[2]) == 'string' then
    answer[#answer + 1] = pair[1]
    answer[#answer + 1] = pair[2]
  end
end
sendHints()
return answer
`
  )

/** Makes the operation. */
export const sweep = (runner: ScriptRunner): BackendDriver<RedisStoreError>["sweep"] => {
  const { clustered, keyspace, run } = runner
  const script = Script.make<readonly [swept: number, ...keysInOtherShards: Array<string>]>(lua(clustered))
  const free = freeKeys(runner)
  return Effect.fnUntraced(function* (limit) {
    let total = 0
    for (let shard = 0; shard < keyspace.shards && total < limit; shard++) {
      const [swept, ...keysInOtherShards] = yield* run(script, shard, [`${limit - total}`])
      total += swept
      yield* free(keysInOtherShards)
    }
    return total
  })
}
