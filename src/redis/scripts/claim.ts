import { IDLE_MILLIS, queueFunctions } from "./messages.ts"
import { clock, send } from "./prelude.ts"

/** How many messages a claim makes ready at most, beyond those that it takes. */
const PROMOTED = 1_000
/** How many messages a claim takes at most: so many values fit into one call. */
const MOST = 4_000

/**
 * For `claim`, also together with starts: `take` claims, and calls `each` with the number of a queue (counted from 1),
 * its claimed members, each behind the end of its lease, and their texts.
 */
export const claimFunctions = /* lua */ `
-- a member that is none of ours becomes the text of a message, which will be found to be none
local function adopt(queue, member)
  local id = string.format('%015.0f', redis.call('INCR', base .. ':messages-order'))
  redis.call('HSET', queueKey(queue, 'texts'), id, member)
  return memberOf(id, now, 0)
end

-- the member without the name of a claim that ran out
local function unclaimed(queue, member)
  return string.match(member, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d:%d+:%d+') or adopt(queue, member)
end

local function promote(queue, set, max)
  local key = queueKey(queue, set)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ${PROMOTED} + max)
  if #due == 0 then return end
  local members, gone = {}, {}
  for _, member in ipairs(due) do
    members[#members + 1] = rankOf(member)
    members[#members + 1] = member
    gone[#gone + 1] = member
  end
  inParts('ZADD', queueKey(queue, 'ready'), members)
  inParts('ZREM', key, gone)
end

-- takes the best of the heads of all places, in their order: runs of a queue's number and its members
local function takeBest(queues, max)
  local heads = {}
  for number, queue in ipairs(queues) do
    for _, place in ipairs({ 'fresh', 'ready' }) do
      local command = place == 'fresh' and 'LRANGE' or 'ZRANGE'
      local members = redis.call(command, queueKey(queue, place), 0, max - 1)
      if #members > 0 then
        heads[#heads + 1] = { number = number, place = place, members = members, next = 1, rank = rankOf(members[1]) }
      end
    end
  end
  local runs = {}
  for i = 1, max do
    local best
    for _, head in ipairs(heads) do
      local member = head.members[head.next]
      if member and (not best or head.rank < best.rank
        or head.rank == best.rank and member < best.members[best.next]) then best = head end
    end
    if not best then break end
    local run = runs[#runs]
    if not run or run[1] ~= best.number then
      run = { best.number, {} }
      runs[#runs + 1] = run
    end
    table.insert(run[2], best.members[best.next])
    best.next = best.next + 1
    if best.members[best.next] then best.rank = rankOf(best.members[best.next]) end
  end
  for _, head in ipairs(heads) do
    local key = queueKey(queues[head.number], head.place)
    if head.next > 1 and head.place == 'fresh' then redis.call('LTRIM', key, head.next - 1, -1) end
    if head.next > 1 and head.place == 'ready' then redis.call('ZREM', key, unpack(head.members, 1, head.next - 1)) end
  end
  return runs
end

local function takeDue(queues, max)
  for _, queue in ipairs(queues) do
    promote(queue, 'delayed', max)
    promote(queue, 'claimed', max)
  end
  -- nearly always there is one queue, with nothing to compare
  if #queues == 1 and redis.call('EXISTS', queueKey(queues[1], 'ready')) == 0 then
    local members = redis.call('LPOP', queueKey(queues[1], 'fresh'), max)
    return members and { { 1, members } } or {}
  end
  return takeBest(queues, max)
end

local function textsOf(queue, claimed)
  local ids = {}
  for i = 2, #claimed, 2 do ids[i / 2] = numberOf(claimed[i]) end
  return redis.call('HMGET', queueKey(queue, 'texts'), unpack(ids))
end

local function hold(queue, members, ends, name)
  local claimed = {}
  for i, member in ipairs(members) do
    claimed[2 * i - 1] = ends
    claimed[2 * i] = unclaimed(queue, member) .. ':' .. name
  end
  inParts('ZADD', queueKey(queue, 'claimed'), claimed)
  return claimed
end

-- how long until something more becomes due
local function nextDue(queues)
  local next = -1
  for _, queue in ipairs(queues) do
    for _, set in ipairs({ 'delayed', 'claimed' }) do
      local first = redis.call('ZRANGE', queueKey(queue, set), 0, 0, 'WITHSCORES')
      if first[2] then
        local wait = math.max(tonumber(first[2]) - now, 0)
        if next < 0 or wait < next then next = wait end
      end
    end
  end
  return next
end

-- leaves word whether the process is idle
local function beIdle(queues, process, isIdle)
  for _, queue in ipairs(queues) do
    local idle = queueKey(queue, 'idle')
    if isIdle then
      redis.call('ZADD', idle, now, process)
      redis.call('ZREMRANGEBYSCORE', idle, '-inf', now - ${IDLE_MILLIS})
    else
      redis.call('ZREM', idle, process)
    end
  end
end

local function readClaim()
  return { max = math.min(number(), ${MOST}), lease = number(), worker = text(), process = text(),
    heard = text() == '1', name = text(), again = text() == '1' }
end

-- What the claim of that name took and still holds, and nothing new. It has to look through all claims, which is done
-- only where a connection broke.
local function takeAgain(ask, queues, each)
  local suffix, ends, left = ':' .. ask.name, integer(now + ask.lease), ask.max
  for number, queue in ipairs(queues) do
    local key, claimed = queueKey(queue, 'claimed'), {}
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if left > 0 and string.sub(member, -#suffix) == suffix then
        left = left - 1
        claimed[#claimed + 1] = ends
        claimed[#claimed + 1] = member
      end
    end
    if #claimed > 0 then
      inParts('ZADD', key, claimed)
      each(number, claimed, textsOf(queue, claimed))
    end
  end
end

local function take(ask, queues, answer, each)
  if ask.again then return takeAgain(ask, queues, each) end
  local taken, ends = 0, integer(now + ask.lease)
  for _, run in ipairs(takeDue(queues, ask.max)) do
    local number, members = run[1], run[2]
    local claimed = hold(queues[number], members, ends, ask.name)
    taken = taken + #members
    each(number, claimed, textsOf(queues[number], claimed))
  end
  if ask.heard then beIdle(queues, ask.process, taken < ask.max) end
  if taken < ask.max then answer[2] = nextDue(queues) end
end
`

/**
 * `claim`. Answers the time; how long until something more becomes due (-1: nothing will by itself); and for each
 * message its queue, its member and its text.
 */
export const claim = (clustered: boolean): string =>
  `${clock}${send(clustered)}${queueFunctions}${claimFunctions}
local ask, queues = readClaim(), {}
while at < #ARGV do queues[#queues + 1] = text() end
local answer = { now, -1 }
take(ask, queues, answer, function(number, claimed, texts)
  for i = 1, #claimed / 2 do
    local last = #answer
    answer[last + 1], answer[last + 2], answer[last + 3] = number, claimed[2 * i], texts[i] or ''
  end
end)
return answer
`
