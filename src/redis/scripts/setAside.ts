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
import { lanesLua } from "./lib/lanes.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua, withoutClaimIdLua } from "./lib/queues.ts"

/** How many messages at the head of a queue one step looks at, so that it takes about 2 milliseconds. */
const HEAD = 4_000
/** For how many fresh messages a ready one counts: it takes that much longer to keep their order. */
const READY_WEIGHT = 4
const READY_HEAD = 750
/** How many texts a step reads at most of each of the two, where tags are not known. */
const MAX_TEXTS = 500
/** Bytes of such texts after which a step looks at no more. */
const MAX_TEXT_BYTES = 1024 * 1024

/**
 * Returns 1 if the queue is blocked. A message whose text has no task, and whose tag is not known, stays: it fails to decode, and
 * its task ends.
 */
const lua = `${preludeLua}${whenFullLua}${queuesLua}${removeClaimLua}${withoutClaimIdLua}${lanesLua}
local queue, isOwn = nextText(), {}
for _ = 1, nextNumber() do isOwn[nextText()] = true end
local texts, freshKey, readyKey = queueKey(queue, 'texts'), queueKey(queue, 'fresh'), queueKey(queue, 'ready')

-- what goes to the lanes, by their tasks: the members, and their number
local lanes = {}
local function laneOf(task)
  local lane = lanes[task]
  if not lane then
    lane = { fresh = { count = 0 }, ready = { count = 0 } }
    lanes[task] = lane
  end
  return lane
end

-- claims end here
while position < #ARGV do
  local member = nextText()
  local task = taskOf(redis.call('HGET', texts, numberOf(member)))
  if task and removeClaim(queueKey(queue, 'claimed'), queue, member) then
    local ready = laneOf(task).ready
    ready.count = ready.count + 1
    ready[ready.count] = withoutClaimId(member) or member
  end
end

local textsRead, bytesRead = 0, 0
local function taskOfText(member)
  local text = redis.call('HGET', texts, numberOf(member)) or ''
  textsRead, bytesRead = textsRead + 1, bytesRead + #text
  return taskOf(text)
end

-- The lanes of members of the usual form, by the part behind the due time, which begins at the 30th byte; false for one that stays.
-- What they have before it is not looked at: a claim adopts a member that this store did not write, wherever it lies.
local laneOfSuffix = {}

-- returns the lane of a member, false if it stays, and the member without the id of a claim
local function findLane(member)
  local bare = withoutClaimId(member)
  if not bare then return false end
  local tag = string.match(bare, ':(%d+)$')
  local tagged = tag ~= '0' and redis.call('HGET', base .. ':tagged-tasks', tag)
  local task = tagged or taskOfText(bare)
  local lane = task and not isOwn[task] and laneOf(task)
  if tagged and bare == member and string.find(member, '^:%d+:%d+$', 30) then laneOfSuffix[string.sub(member, 30)] = lane end
  return lane, bare
end

-- Looks at members from the first on, and puts those of other tasks into a place of their lanes. Returns at how many it looked,
-- and the indexes of those that stay.
local function look(members, placeName)
  local sub, stays = string.sub, {}
  textsRead, bytesRead = 0, 0
  for i = 1, #members do
    local member = members[i]
    local lane = laneOfSuffix[sub(member, 30)]
    if lane == nil then
      if textsRead >= ${MAX_TEXTS} or bytesRead >= ${MAX_TEXT_BYTES} then return i - 1, stays end
      lane, member = findLane(member)
    end
    if lane then
      local place = lane[placeName]
      local count = place.count + 1
      place.count, place[count] = count, member
    else
      stays[#stays + 1] = i
    end
  end
  return #members, stays
end

local ready = redis.call('ZRANGE', readyKey, 0, ${READY_HEAD - 1})
local freshHead = ${HEAD} - ${READY_WEIGHT} * #ready
local fresh = redis.call('LRANGE', freshKey, 0, freshHead - 1)
local lookedFresh, freshStays = look(fresh, 'fresh')
local lookedReady, readyStays = look(ready, 'ready')
local hasMore = lookedFresh < #fresh or lookedReady < #ready or #fresh == freshHead or #ready == ${READY_HEAD}
local isBlocked = hasMore and #freshStays == 0 and #readyStays == 0

for task, lane in pairs(lanes) do
  local scored = {}
  for i, member in ipairs(lane.ready) do scored[2 * i - 1], scored[2 * i] = rankOf(member), member end
  addToLane(queue, task, lane.fresh, scored)
end

-- fresh ones that stay before one that does not go back to the head
local last, back = lookedFresh, {}
while #freshStays > 0 and freshStays[#freshStays] == last do
  freshStays[#freshStays] = nil
  last = last - 1
end
for i = #freshStays, 1, -1 do back[#back + 1] = fresh[freshStays[i]] end
if last > 0 then redis.call('LTRIM', freshKey, last, -1) end
callInChunks('LPUSH', freshKey, back)

local removed, next = {}, 1
for i = 1, lookedReady do
  if readyStays[next] == i then next = next + 1 else removed[#removed + 1] = ready[i] end
end
callInChunks('ZREM', readyKey, removed)
return isBlocked and 1 or 0
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
