import * as defaults from "../../internal/defaults.ts"
import { clock, send } from "./prelude.ts"

/** An idle worker looks every second: one that did not say so for longer is not counted on. */
export const IDLE_MILLIS = 2_500
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
export const queueFunctions = /* lua */ `
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
export const publishFunctions = `${queueFunctions}
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

/** The bytes of messages, in hexadecimal: an answer's text is decoded as UTF-8 on the way, which loses others. */
export const bytes = `${clock}${queueFunctions}
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
export const renew = `${clock}${queueFunctions}${reading}${disclaim}
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

export const ack = `${clock}${queueFunctions}${reading}${ackFunctions}
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
): string => `${clock}${send(clustered)}${queueFunctions}${disclaim}${releaseFunctions}
while at < #ARGV do
  local queue, member, after, keepDue, hasBody, body = text(), text(), number(), text() == '1', text() == '1', text()
  release(queue, member, after, keepDue, hasBody and body or nil)
end
`

/** Puts messages aside, into a stream of their queue that operators can read. */
export const reject = `${clock}${queueFunctions}${disclaim}
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
export const counts = `${clock}${queueFunctions}
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
export const purge = `${clock}${queueFunctions}
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
