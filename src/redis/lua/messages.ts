import { clock, send } from "./clock.ts"

/** An idle worker looks every second: one that did not say so for longer is not counted on. */
const IDLE_MILLIS = 2_500
/** How many messages a claim makes ready at most, beyond those that it takes. */
const PROMOTED = 1_000
/** How long messages stay that were rejected. */
const PARKED_MILLIS = 14 * 86_400_000

/**
 * Messages: their texts in one hash a queue, and a member for each in exactly one of three sorted sets: ':ready', in
 * the order in which they are claimed; ':delayed' and ':claimed', by the time at which they become due (again).
 *
 * A member is `<number>:<due>:<priority>`, and after a claim `<number>:<due>:<priority>:<claim>`: each claim has a
 * number of its own, so that the member is its receipt, held for as long as it lies in one of the sets, also after the
 * lease ran out.
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
  for _, channel in ipairs(idle) do send(channel, cjson.encode({ 'due', queue, due - now })) end
end

-- so many pairs fit into one call
local function inParts(command, key, items)
  for i = 1, #items, 4000 do redis.call(command, key, unpack(items, i, math.min(i + 3999, #items))) end
end
`

/** For publishing, also together with records. Reads groups of messages of the same queue, priority and delay. */
export const publishFunctions = `${functions}
local function publish(queue, priority, delay, values)
  local order = redis.call('INCRBY', base .. ':messages-order', #values) - #values
  local due = now + delay
  local score = delay > 0 and due or rank(priority, due)
  score = integer(score)
  local members, texts = {}, {}
  local tail = memberOf('', due, priority)
  for i, value in ipairs(values) do
    local id = string.format('%015.0f', order + i)
    members[2 * i - 1] = score
    members[2 * i] = id .. tail
    texts[2 * i - 1] = id
    texts[2 * i] = value
  end
  inParts('HSET', queueKey(queue, 'texts'), texts)
  inParts('ZADD', queueKey(queue, delay > 0 and 'delayed' or 'ready'), members)
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
 * `claim`. Answers the time, how long until something more becomes due (-1: nothing will by itself), and for each
 * message its queue (counted from 1), its member and its text.
 */
export const claim = (clustered: boolean): string => `${clock}${send(clustered)}${functions}
local max, lease, channel = number(), number(), text()
local queues = {}
while at < #ARGV do queues[#queues + 1] = text() end

-- a member that is none of ours becomes the text of a message, which will be found to be none
local function adopt(queue, member)
  local id = string.format('%015.0f', redis.call('INCR', base .. ':messages-order'))
  redis.call('HSET', queueKey(queue, 'texts'), id, member)
  return memberOf(id, now, 0)
end

-- the member without the number of a claim that ran out
local function unclaimed(queue, member)
  return string.match(member, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d:%d+:%d+') or adopt(queue, member)
end

local function promote(queue, set)
  local key = queueKey(queue, set)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ${PROMOTED} + max)
  if #due == 0 then return end
  local members, gone = {}, {}
  for _, member in ipairs(due) do
    local _, time, priority = parse(member)
    members[#members + 1] = rank(priority or 0, time or now)
    members[#members + 1] = member
    gone[#gone + 1] = member
  end
  inParts('ZADD', queueKey(queue, 'ready'), members)
  inParts('ZREM', key, gone)
end

local answer = { now, -1 }
local taken = 0

-- claims members of a queue that were taken off
local function take(number, members)
  if #members == 0 then return end
  local queue = queues[number]
  local suffix = ':' .. integer(redis.call('INCR', base .. ':claims'))
  local ends = integer(now + lease)
  local ids, claimed = {}, {}
  for i, member in ipairs(members) do
    member = unclaimed(queue, member)
    ids[i] = numberOf(member)
    claimed[2 * i - 1] = ends
    claimed[2 * i] = member .. suffix
  end
  inParts('ZADD', queueKey(queue, 'claimed'), claimed)
  local texts = redis.call('HMGET', queueKey(queue, 'texts'), unpack(ids))
  for i = 1, #members do
    local at = #answer
    answer[at + 1], answer[at + 2], answer[at + 3] = number, claimed[2 * i], texts[i] or ''
  end
  taken = taken + #members
end

-- the best of the heads of several queues, in their order
local function takeBest()
  local heads = {}
  for number, queue in ipairs(queues) do
    local head = redis.call('ZRANGE', queueKey(queue, 'ready'), 0, max - 1, 'WITHSCORES')
    for i = 1, #head, 2 do heads[#heads + 1] = { number, head[i], tonumber(head[i + 1]) } end
  end
  table.sort(heads, function(a, b)
    if a[3] ~= b[3] then return a[3] < b[3] end
    return a[2] < b[2]
  end)
  for i = 1, math.min(max, #heads) do
    local number, member = heads[i][1], heads[i][2]
    redis.call('ZREM', queueKey(queues[number], 'ready'), member)
    take(number, { member })
  end
end

for _, queue in ipairs(queues) do
  promote(queue, 'delayed')
  promote(queue, 'claimed')
end
if #queues == 1 then
  local popped, members = redis.call('ZPOPMIN', queueKey(queues[1], 'ready'), max), {}
  for i = 1, #popped, 2 do members[#members + 1] = popped[i] end
  take(1, members)
else
  takeBest()
end

if taken < max then
  for _, queue in ipairs(queues) do
    for _, set in ipairs({ 'delayed', 'claimed' }) do
      local first = redis.call('ZRANGE', queueKey(queue, set), 0, 0, 'WITHSCORES')
      if first[2] then
        local wait = math.max(tonumber(first[2]) - now, 0)
        if answer[2] < 0 or wait < answer[2] then answer[2] = wait end
      end
    end
  end
end
if channel ~= '' then
  for _, queue in ipairs(queues) do
    local idle = queueKey(queue, 'idle')
    if taken < max then
      redis.call('ZADD', idle, now, channel)
      redis.call('ZREMRANGEBYSCORE', idle, '-inf', now - ${IDLE_MILLIS})
    else
      redis.call('ZREM', idle, channel)
    end
  end
end
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
local function disclaim(queue, member)
  return redis.call('ZREM', queueKey(queue, 'claimed'), member) == 1
    or redis.call('ZREM', queueKey(queue, 'ready'), member) == 1
end
`

/** Answers one digit for each, in the order of the groups. */
export const renew = `${clock}${functions}${reading}${disclaim}
local lease = number()
local answers = {}
while at < #ARGV do
  local queue, members = readMembers()
  for _, member in ipairs(members) do
    if disclaim(queue, member) then
      redis.call('ZADD', queueKey(queue, 'claimed'), now + lease, member)
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
  local ids = {}
  for _, member in ipairs(members) do
    local held = disclaim(queue, member)
    if held then ids[#ids + 1] = numberOf(member) end
    answers[#answers + 1] = held and '1' or '0'
  end
  if #ids > 0 then inParts('HDEL', queueKey(queue, 'texts'), ids) end
end
`

export const ack = `${clock}${functions}${reading}${ackFunctions}
local answers = {}
while at < #ARGV do
  local queue, members = readMembers()
  ack(queue, members, answers)
end
return table.concat(answers)
`

/** For `release`, also after settlements. */
export const releaseFunctions = /* lua */ `
local function release(queue, member, after, keepDue, body)
  if not disclaim(queue, member) then return end
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
  if disclaim(queue, member) then
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
  answers[#answers + 1] = redis.call('ZCARD', queueKey(queue, 'ready')) + count('delayed', '-inf', now)
    + count('claimed', '-inf', now)
  answers[#answers + 1] = count('delayed', later, '+inf')
  answers[#answers + 1] = count('claimed', later, '+inf')
end
return answers
`

/** Removes messages that nobody has claimed; answers their texts. */
export const purge = `${clock}${functions}
local queue, limit = text(), number()
local answers = {}
local function remove(set, ends)
  local left = limit - #answers
  if left <= 0 then return end
  local members = redis.call('ZRANGEBYSCORE', queueKey(queue, set), '-inf', ends, 'LIMIT', 0, left)
  if #members == 0 then return end
  local ids = {}
  for i, member in ipairs(members) do ids[i] = numberOf(member) end
  for _, value in ipairs(redis.call('HMGET', queueKey(queue, 'texts'), unpack(ids))) do
    answers[#answers + 1] = value or ''
  end
  redis.call('ZREM', queueKey(queue, set), unpack(members))
  redis.call('HDEL', queueKey(queue, 'texts'), unpack(ids))
end
remove('ready', '+inf')
remove('delayed', '+inf')
remove('claimed', now)
return answers
`
