/** Queues in Lua: where messages lie, in which order, and how idle workers are woken. */

import * as defaults from "../../../internal/defaults.ts"

/** How long rejected messages stay. */
export const PARKED_MILLIS = defaults.deadLetterRetentionMillis

/** An idle worker claims once a second; one that did not for longer is not woken. */
export const IDLE_MILLIS = 2_500

/**
 * Lua: keys, members and order of a queue, and wake messages to idle processes.
 *
 * The texts of a queue's messages lie in one hash, `:texts`, and a member for each message in exactly one of four places:
 *
 * - `:fresh`, a list: published for now with the default priority, which costs a fraction there;
 * - `:ready`, a sorted set by priority and due time: everything else that can be claimed;
 * - `:delayed`, a sorted set by due time;
 * - `:claimed`, a sorted set by the end of the lease.
 *
 * A rejected message lies in the stream `:parked`, with its text and the reason, and no longer in the hash.
 *
 * A member is `<number>:<due>:<priority>:<tag>`, and after a claim `<number>:<due>:<priority>:<tag>:<claim id>`. It is the
 * receipt of the claim, which holds while the member lies in one of the sets, also after the lease is over. Where the age of a
 * message is counted from an earlier time than that at which it became due, `<due>` is `<due>-<since>`.
 *
 * The tag stands for the name of the task, so that messages are set aside without a look at their texts. Each name has one in a
 * shard: the hash `:task-tags` leads from names to tags, `:tagged-tasks` from tags to names. The tag 0 stands for a name that only
 * the text says: a member of another program that has no tag gets it when it is claimed.
 */
export const queuesLua = /* lua */ `
local function queueKey(queue, part)
  return base .. ':queue:' .. queue .. ':' .. part
end

-- highest priority first, then the time; both fit into the 53 bits of a score
local function rank(priority, due)
  return (255 - priority) * 17592186044416 + due
end

-- message numbers have 15 digits, so that members of the same score are in their order
local function numberOf(member)
  return string.sub(member, 1, 15)
end

local function parseMember(member)
  local id, due, since, priority, tag = string.match(member, '^(%d+):(%d+)%-?(%d*):(%d+):(%d+)%f[%z:]')
  if not id then id, due, since, priority = string.match(member, '^(%d+):(%d+)%-?(%d*):(%d+)') end
  return id, tonumber(due), tonumber(priority), tag or '0', tonumber(since)
end

local function rankOf(member)
  local due, priority = string.match(member, '^%d+:(%d+)%-?%d*:(%d+)')
  return rank(tonumber(priority or 0), tonumber(due or now))
end

local function memberOf(id, due, priority, tag, since)
  return id .. ':' .. integerText(due) .. (since and '-' .. integerText(since) or '') .. ':' .. integerText(priority) .. ':' .. tag
end

-- a message that is not due yet, as its record names it
local function delayedMessageOf(queue, member)
  return member .. '/' .. string.gsub(queue, '[%%%s]', function(byte) return string.format('%%%02X', string.byte(byte)) end)
end

-- removes idle processes of a queue, and returns each with the time of its last claim
local function takeIdle(queue, count)
  return redis.call('ZPOPMAX', queueKey(queue, 'idle'), count)
end

-- wakes as many idle processes as there are messages to claim now, or those that are taken already
local function wakeIdle(queue, count, idle)
  idle = idle or takeIdle(queue, count)
  for i = 1, #idle, 2 do
    if tonumber(idle[i + 1]) >= now - ${IDLE_MILLIS} then notify(idle[i], cjson.encode({ 'ready', queue })) end
  end
end

-- of each queue, the first time at which a message that the script delays becomes due
local firstDue = {}
local function wakeIdleAt(queue, due)
  firstDue[queue] = math.min(due, firstDue[queue] or due)
end

-- wakes all idle processes at the time of a message that becomes due before every other; comes at the end of a script
local function sendDueTimes()
  for queue, due in pairs(firstDue) do
    local first = redis.call('ZRANGE', queueKey(queue, 'delayed'), 0, 0, 'WITHSCORES')
    local isFirst = first[2] and tonumber(first[2]) >= due
    local idle = isFirst and redis.call('ZRANGEBYSCORE', queueKey(queue, 'idle'), now - ${IDLE_MILLIS}, '+inf') or {}
    for _, process in ipairs(idle) do notify(process, cjson.encode({ 'due', queue, due - now })) end
  end
end

-- removes what outlived its retention from the rejected messages, and returns their key
local function trimmedParked(queue)
  local key = queueKey(queue, 'parked')
  redis.call('XTRIM', key, 'MINID', integerText(now - ${PARKED_MILLIS}))
  return key
end

-- calls a command with any number of items; 4,000 fit into one call
local function callInChunks(command, key, items)
  for i = 1, #items, 4000 do redis.call(command, key, unpack(items, i, math.min(i + 3999, #items))) end
end
`

/** Lua: `withoutClaimId`, for members of every place. */
export const withoutClaimIdLua = /* lua */ `
-- the member without the id of a claim whose lease is over, and with a tag; nil for a member that this store did not write
local function withoutClaimId(member)
  if string.find(member, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d:%d+%-?%d*:%d+:%d+$') then return member end
  local bare = string.match(member, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d:%d+%-?%d*:%d+:%d+):')
  if bare then return bare end
  bare = string.match(member, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d:%d+%-?%d*:%d+')
  return bare and bare .. ':0'
end
`
