/** Lanes in Lua: the messages that were set aside, a lane for each task of a queue. See `internal/driver/lanes.ts`. */

/** How many messages at the head of a queue one step sets aside at most, of the fresh ones and of the ready ones. */
export const HEAD = 2_000
/** Bytes of texts after which a step looks at no more. */
export const HEAD_BYTES = 1024 * 1024

/**
 * Lua: lanes. Needs `queuesLua`.
 *
 * A lane is a sorted set of members, in the order of `:ready`, whose texts stay with the queue. The set `:lanes` of a shard names
 * all its lanes: nearly always there are none, as the absence of this one key shows. A task is written as in the head of a
 * message.
 */
export const lanesLua = /* lua */ `
-- the length of the queue keeps apart what names may contain
local function laneName(queue, task)
  return #queue .. ':' .. queue .. task
end

local function laneKey(queue, task)
  return base .. ':lane:' .. laneName(queue, task)
end

-- the queues and the tasks of all lanes, in pairs
local function allLanes()
  local lanes = {}
  for _, name in ipairs(redis.call('ZRANGE', base .. ':lanes', 0, -1)) do
    local length, rest = string.match(name, '^(%d+):(.*)$')
    if length then lanes[#lanes + 1] = { string.sub(rest, 1, length), string.sub(rest, length + 1) } end
  end
  return lanes
end

-- the tasks that have a lane, by their queues
local function tasksByQueue()
  local byQueue = {}
  for _, lane in ipairs(allLanes()) do
    local tasks = byQueue[lane[1]] or {}
    byQueue[lane[1]] = tasks
    tasks[#tasks + 1] = lane[2]
  end
  return byQueue
end

-- the task of a message, by its text; nil for a text without a head
local function taskOf(text)
  return string.match(text or '', '^%S+ (%S+) %d+ %S+\\n')
end

-- adds members, each behind its rank, to the lane of a task
local function addToLane(queue, task, scored)
  redis.call('ZADD', base .. ':lanes', 0, laneName(queue, task))
  callInChunks('ZADD', laneKey(queue, task), scored)
end

local function removeFromLane(queue, task, members)
  local key = laneKey(queue, task)
  callInChunks('ZREM', key, members)
  if redis.call('ZCARD', key) == 0 then redis.call('ZREM', base .. ':lanes', laneName(queue, task)) end
end

-- the ranks of a priority; a score that this store did not write may be beyond all of them
local RANKS, PRIORITIES = rank(0, 0) - rank(1, 0), 256

-- returns at most max members of a lane that were due at that time, in the order of claims
local function dueMembers(key, time, max)
  local found, from = {}, '-inf'
  for _ = 1, PRIORITIES do
    if #found >= max then break end
    local first = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then break end
    local level = math.floor(first[2] / RANKS) * RANKS
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, from, integerText(level + time), 'LIMIT', 0, max - #found)) do
      found[#found + 1] = member
    end
    from = integerText(level + RANKS)
  end
  return found
end

-- returns when the oldest member of a lane, or of the ready ones, became due; the given time if none was due before it
local function oldestByRank(key, later)
  local oldest, from = later, '-inf'
  for _ = 1, PRIORITIES do
    local first = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then break end
    local _, due = parseMember(first[1])
    oldest = math.min(oldest, due or later)
    from = integerText((math.floor(first[2] / RANKS) + 1) * RANKS)
  end
  return oldest
end
`
