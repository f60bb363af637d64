import * as defaults from "../../internal/defaults.ts"
import { clock, send } from "./clock.ts"

/** An idle worker looks every second: one that did not say so for longer is not counted on. */
const IDLE_MILLIS = 2_500
/** How many messages a claim makes ready at most, beyond those that it takes. */
const PROMOTED = 1_000
/** How many messages a claim takes at most: so many values fit into one call. */
const MOST = 4_000
/** How long messages stay that were rejected. */
const PARKED_MILLIS = 14 * 86_400_000

/**
 * Messages: their texts in one hash a queue, and a member for each in exactly one of four places. Two of them hold what
 * is ready, in the order in which it is claimed: the list ':fresh' what was published for now with the default
 * priority, which costs a fraction there, and the sorted set ':ready' all else. ':delayed' and ':claimed' are sorted by
 * the time at which their members become due (again).
 *
 * A member is `<number>:<due>:<priority>`, and after a claim `<number>:<due>:<priority>:<claim>`: each claim has a name
 * of its own, so that the member is its receipt, held for as long as it lies in one of the sets, also after the lease
 * ran out.
 */
const functions = /* lua */ `
local function queueKey(queue, part)
  return base .. ':queue:' .. queue .. ':' .. part
end

-- highest priority first, then the time; both fit into the 53 bits of a score
local function rank(priority, due)
  return (255 - priority) * 17592186044416 + due
end

-- numbers have 15 digits, so that members of the same score are in their order
local function numberOf(member)
  return string.sub(member, 1, 15)
end

local function parse(member)
  local id, due, priority = string.match(member, '^(%d+):(%d+):(%d+)')
  return id, tonumber(due), tonumber(priority)
end

local function rankOf(member)
  local _, due, priority = parse(member)
  return rank(priority or 0, due or now)
end

local function memberOf(id, due, priority)
  return id .. ':' .. integer(due) .. ':' .. integer(priority)
end

-- wakes idle workers: so many, where there is something to claim now
local function wake(queue, count)
  local idle = redis.call('ZPOPMAX', queueKey(queue, 'idle'), count)
  for i = 1, #idle, 2 do
    if tonumber(idle[i + 1]) >= now - ${IDLE_MILLIS} then send(idle[i], cjson.encode({ 'ready', queue })) end
  end
end

-- tells all idle workers of a message that becomes due before those they know
local function announce(queue, due)
  local first = redis.call('ZRANGE', queueKey(queue, 'delayed'), 0, 0, 'WITHSCORES')
  if not first[2] or tonumber(first[2]) < due then return end
  local idle = redis.call('ZRANGEBYSCORE', queueKey(queue, 'idle'), now - ${IDLE_MILLIS}, '+inf')
  for _, process in ipairs(idle) do send(process, cjson.encode({ 'due', queue, due - now })) end
end

-- so many pairs fit into one call
local function inParts(command, key, items)
  for i = 1, #items, 4000 do redis.call(command, key, unpack(items, i, math.min(i + 3999, #items))) end
end
`

/** For publishing, also together with records. Reads groups of messages of the same queue, priority and delay. */
export const publishFunctions = `${functions}
-- so many texts of the arguments, which come next
local function publish(queue, priority, delay, values)
  local order = redis.call('INCRBY', base .. ':messages-order', #values) - #values
  local due = now + delay
  local members, texts = {}, {}
  local tail = memberOf('', due, priority)
  for i, value in ipairs(values) do
    local id = string.format('%015.0f', order + i)
    members[i] = id .. tail
    texts[2 * i - 1] = id
    texts[2 * i] = value
  end
  inParts('HSET', queueKey(queue, 'texts'), texts)
  if delay == 0 and priority == ${defaults.priority} then
    inParts('RPUSH', queueKey(queue, 'fresh'), members)
    return wake(queue, #values)
  end
  local scored = {}
  local score = integer(delay > 0 and due or rank(priority, due))
  for i, member in ipairs(members) do
    scored[2 * i - 1] = score
    scored[2 * i] = member
  end
  inParts('ZADD', queueKey(queue, delay > 0 and 'delayed' or 'ready'), scored)
  if delay > 0 then announce(queue, due) else wake(queue, #values) end
end
`

export const publish = (clustered: boolean): string => `${clock}${send(clustered)}${publishFunctions}
while at < #ARGV do
  local queue, priority, delay = text(), number(), number()
  local values = {}
  for i = 1, number() do values[i] = text() end
  publish(queue, priority, delay, values)
end
`

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
  `${clock}${send(clustered)}${functions}${claimFunctions}
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

/** The bytes of messages, in hexadecimal: an answer's text is decoded as UTF-8 on the way, which loses others. */
export const bytes = `${clock}${functions}
local answers = {}
while at < #ARGV do
  local queue, member = text(), text()
  local value = redis.call('HGET', queueKey(queue, 'texts'), numberOf(member)) or ''
  answers[#answers + 1] = string.gsub(value, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
end
return answers
`

/** Groups of a queue and its members. */
const reading = /* lua */ `
local function readMembers()
  local queue, members = text(), {}
  for i = 1, number() do members[i] = text() end
  return queue, members
end
`

/** Takes a claim off its set; whether it was held. It lies among the ready after its lease ran out. */
const disclaim = /* lua */ `
local function disclaim(claimed, queue, member)
  return redis.call('ZREM', claimed, member) == 1 or redis.call('ZREM', queueKey(queue, 'ready'), member) == 1
end
`

/** Answers one digit for each, in the order of the groups. */
export const renew = `${clock}${functions}${reading}${disclaim}
local lease = number()
local answers = {}
while at < #ARGV do
  local queue, members = readMembers()
  local claimed = queueKey(queue, 'claimed')
  for _, member in ipairs(members) do
    if disclaim(claimed, queue, member) then
      redis.call('ZADD', claimed, now + lease, member)
      answers[#answers + 1] = '1'
    else
      answers[#answers + 1] = '0'
    end
  end
end
return table.concat(answers)
`

/** For `ack`, also after settlements. Answers one digit for each, in the order of the groups. */
export const ackFunctions = `${disclaim}
local function ack(queue, members, answers)
  local claimed, ids = queueKey(queue, 'claimed'), {}
  for i, member in ipairs(members) do
    local held = disclaim(claimed, queue, member)
    if held then ids[#ids + 1] = numberOf(member) end
    answers[i] = held and '1' or '0'
  end
  if #ids > 0 then inParts('HDEL', queueKey(queue, 'texts'), ids) end
end
`

export const ack = `${clock}${functions}${reading}${ackFunctions}
local groups = {}
while at < #ARGV do
  local queue, members = readMembers()
  local answers = {}
  ack(queue, members, answers)
  groups[#groups + 1] = table.concat(answers)
end
return table.concat(groups)
`

/** For `release`, also after settlements. */
export const releaseFunctions = /* lua */ `
local function release(queue, member, after, keepDue, body)
  if not disclaim(queueKey(queue, 'claimed'), queue, member) then return end
  local id, due, priority = parse(member)
  local wakes = now + after
  if not keepDue then due = wakes end
  if body then
    -- the head of the message stays
    local texts = queueKey(queue, 'texts')
    local value = redis.call('HGET', texts, id) or ''
    redis.call('HSET', texts, id, string.sub(value, 1, string.find(value, '\\n', 1, true) or 0) .. body)
  end
  member = memberOf(id, due, priority)
  if after > 0 then
    redis.call('ZADD', queueKey(queue, 'delayed'), wakes, member)
    announce(queue, wakes)
  else
    redis.call('ZADD', queueKey(queue, 'ready'), rank(priority, due), member)
    wake(queue, 1)
  end
end
`

export const release = (
  clustered: boolean
): string => `${clock}${send(clustered)}${functions}${disclaim}${releaseFunctions}
while at < #ARGV do
  local queue, member, after, keepDue, hasBody, body = text(), text(), number(), text() == '1', text() == '1', text()
  release(queue, member, after, keepDue, hasBody and body or nil)
end
`

/** Puts messages aside, into a stream of their queue that operators can read. */
export const reject = `${clock}${functions}${disclaim}
while at < #ARGV do
  local queue, member, reason = text(), text(), text()
  if disclaim(queueKey(queue, 'claimed'), queue, member) then
    local id = numberOf(member)
    redis.call('XADD', queueKey(queue, 'parked'), 'MINID', '~', integer(now - ${PARKED_MILLIS}), '*', 'reason', reason,
      'message', redis.call('HGET', queueKey(queue, 'texts'), id) or '')
    redis.call('HDEL', queueKey(queue, 'texts'), id)
  end
end
`

/** Ready, delayed and claimed, queue by queue. A claim whose lease ran out counts as ready. */
export const counts = `${clock}${functions}
local answers = {}
while at < #ARGV do
  local queue = text()
  local function count(set, from, to) return redis.call('ZCOUNT', queueKey(queue, set), from, to) end
  local later = '(' .. integer(now)
  answers[#answers + 1] = redis.call('LLEN', queueKey(queue, 'fresh')) + redis.call('ZCARD', queueKey(queue, 'ready'))
    + count('delayed', '-inf', now) + count('claimed', '-inf', now)
  answers[#answers + 1] = count('delayed', later, '+inf')
  answers[#answers + 1] = count('claimed', later, '+inf')
end
return answers
`

/** Removes messages that nobody has claimed; answers their texts. */
export const purge = `${clock}${functions}
local queue, limit = text(), number()
local answers = {}
local function forget(members)
  local ids = {}
  for i, member in ipairs(members) do ids[i] = numberOf(member) end
  for _, value in ipairs(redis.call('HMGET', queueKey(queue, 'texts'), unpack(ids))) do
    answers[#answers + 1] = value or ''
  end
  redis.call('HDEL', queueKey(queue, 'texts'), unpack(ids))
end
local function remove(set, ends)
  local left = limit - #answers
  if left <= 0 then return end
  local members = redis.call('ZRANGEBYSCORE', queueKey(queue, set), '-inf', ends, 'LIMIT', 0, left)
  if #members == 0 then return end
  forget(members)
  redis.call('ZREM', queueKey(queue, set), unpack(members))
end
local fresh = redis.call('LPOP', queueKey(queue, 'fresh'), limit)
if fresh and #fresh > 0 then forget(fresh) end
remove('ready', '+inf')
remove('delayed', '+inf')
remove('claimed', now)
return answers
`
