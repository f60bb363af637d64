/** Sets messages aside: moves claimed ones, and those at the head of a queue, to the lanes of their tasks. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { LaneOperations } from "../../internal/driver/claimByTask.ts"
import * as ClaimHandle from "../ClaimHandle.ts"
import * as FieldText from "../FieldText.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { removeClaimLua } from "./lib/handles.ts"
import { HEAD, HEAD_BYTES, lanesLua } from "./lib/lanes.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"
import { TEXTS_AT_ONCE } from "./lib/replySize.ts"

/**
 * Returns 1 if the queue is blocked. A message whose text has no task stays: it fails to decode, and its task ends.
 *
 * Fresh messages that stay become ready ones, whose order is the same.
 */
const lua = `${preludeLua}${whenFullLua}${queuesLua}${removeClaimLua}${lanesLua}
local queue, isOwn = nextText(), {}
for _ = 1, nextNumber() do isOwn[nextText()] = true end
local texts = queueKey(queue, 'texts')

-- the members of each lane, each behind its rank, and without the id of a claim, which ends here
local scoredOf = {}
local function put(task, member)
  local scored = scoredOf[task] or {}
  scoredOf[task] = scored
  scored[#scored + 1] = rankOf(member)
  scored[#scored + 1] = string.match(member, '^%d+:%d+%-?%d*:%d+') or member
end

while position < #ARGV do
  local member = nextText()
  local task = taskOf(redis.call('HGET', texts, numberOf(member)))
  if task and removeClaim(queueKey(queue, 'claimed'), queue, member) then put(task, member) end
end

-- Looks at members from the first on. Returns how many it looked at, those that are set aside, and the others.
local function look(members)
  local looked, aside, others, bytes = 0, {}, {}, 0
  while looked < #members and bytes < ${HEAD_BYTES} do
    local ids = {}
    for i = looked + 1, math.min(looked + ${TEXTS_AT_ONCE}, #members) do ids[#ids + 1] = numberOf(members[i]) end
    for i, text in ipairs(redis.call('HMGET', texts, unpack(ids))) do
      local member, task = members[looked + i], taskOf(text)
      bytes = bytes + #(text or '')
      if task and not isOwn[task] then
        put(task, member)
        aside[#aside + 1] = member
      else
        others[#others + 1] = member
      end
    end
    looked = looked + #ids
  end
  return looked, aside, others
end

local fresh = redis.call('LRANGE', queueKey(queue, 'fresh'), 0, ${HEAD - 1})
local ready = redis.call('ZRANGE', queueKey(queue, 'ready'), 0, ${HEAD - 1})
local lookedFresh, asideFresh, otherFresh = look(fresh)
local lookedReady, asideReady, otherReady = look(ready)
if #asideFresh > 0 then
  redis.call('LTRIM', queueKey(queue, 'fresh'), lookedFresh, -1)
  local scored = {}
  for _, member in ipairs(otherFresh) do
    scored[#scored + 1] = rankOf(member)
    scored[#scored + 1] = member
  end
  callInChunks('ZADD', queueKey(queue, 'ready'), scored)
end
callInChunks('ZREM', queueKey(queue, 'ready'), asideReady)
for task, scored in pairs(scoredOf) do addToLane(queue, task, scored) end

local hasMore = lookedFresh < #fresh or lookedReady < #ready or #fresh == ${HEAD} or #ready == ${HEAD}
return hasMore and #otherFresh == 0 and #otherReady == 0 and 1 or 0
`

/** Makes the operation. With several shards a queue is blocked if it is so in all of them. */
export const setAside = ({
  everyShard,
  keyspace,
  run
}: ScriptRunner): LaneOperations<RedisError>["setAside"] => {
  const script = Script.make<number>(lua)
  return (queue, tasks, claimed) => {
    const handles = claimed.map(({ handle }) => ClaimHandle.decode(handle, keyspace.shards))
    const head = [queue, `${tasks.size}`, ...Array.from(tasks, FieldText.encode)]
    return Effect.map(
      everyShard((shard) =>
        run(script, shard, [...head, ...handles.flatMap((one) => (one?.shard === shard ? [one.member] : []))])
      ),
      (blocked) => blocked.every((one) => one === 1)
    )
  }
}
