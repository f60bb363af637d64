/** Removes the messages of a queue that are not claimed. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, PurgedMessage } from "../../BrokerDriver.ts"
import * as MessageText from "../MessageText.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { lanesLua } from "./lib/lanes.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/** Returns the heads of the removed messages, of which those whose bytes are no message have no id. */
const lua = `${preludeLua}${queuesLua}${lanesLua}
local queue, limit = nextText(), nextNumber()
local answers = {}
local function addHead(value)
  value = value or ''
  answers[#answers + 1] = string.sub(value, 1, string.find(value, '\\n', 1, true) or 0)
end
local function removeTexts(members)
  local texts, ids = queueKey(queue, 'texts'), {}
  for i, member in ipairs(members) do
    ids[i] = numberOf(member)
    addHead(redis.call('HGET', texts, ids[i]))
  end
  redis.call('HDEL', texts, unpack(ids))
end
local function removeFromList(key)
  local left = limit - #answers
  local members = left > 0 and redis.call('LPOP', key, left)
  if members and #members > 0 then removeTexts(members) end
end
local function removeFromSet(key, ends)
  local left = limit - #answers
  if left <= 0 then return end
  local members = redis.call('ZRANGEBYSCORE', key, '-inf', ends, 'LIMIT', 0, left)
  if #members == 0 then return end
  removeTexts(members)
  redis.call('ZREM', key, unpack(members))
end
removeFromList(queueKey(queue, 'fresh'))
removeFromSet(queueKey(queue, 'ready'), '+inf')
removeFromSet(queueKey(queue, 'delayed'), '+inf')
removeFromSet(queueKey(queue, 'claimed'), now)
if #answers < limit then
  local parked, removed = trimmedParked(queue), {}
  for i, entry in ipairs(redis.call('XRANGE', parked, '-', '+', 'COUNT', limit - #answers)) do
    removed[i] = entry[1]
    addHead(entry[2][4])
  end
  if #removed > 0 then redis.call('XDEL', parked, unpack(removed)) end
end
for _, task in ipairs(#answers < limit and tasksByQueue()[queue] or {}) do
  if #answers >= limit then break end
  local freshKey, readyKey = laneKeys(queue, task)
  removeFromList(freshKey)
  removeFromSet(readyKey, '+inf')
  removeEmptyLane(queue, task)
end
return answers
`

/** Makes the operation. */
export const purge = ({ keyspace, run }: ScriptRunner): BrokerDriver<RedisError>["purge"] => {
  const script = Script.make<ReadonlyArray<string>>(lua)
  return Effect.fnUntraced(function* (queue, limit) {
    const heads: Array<string> = []
    for (let shard = 0; shard < keyspace.shards && heads.length < limit; shard++) {
      heads.push(...(yield* run(script, shard, [queue, `${limit - heads.length}`])))
    }
    return heads
      .map(MessageText.decode)
      .map(({ generation = 0, id = "", incarnation = "" }): PurgedMessage => ({
        id,
        incarnation,
        generation
      }))
  })
}
