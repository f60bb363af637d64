/** Lanes in Lua: the messages that were set aside, a lane for each task of a queue. See `internal/driver/lanes.ts`. */

/**
 * Lua: lanes. Needs `queuesLua`.
 *
 * A lane has two places for members, as a queue has, whose texts stay with the queue: a list of those that came from `:fresh`, and a
 * sorted set of all others, in the order of `:ready`. Members come to it by their tags, so what is claimed from a lane is compared with
 * its text. The set `:lanes` of a shard names all its lanes: nearly always there are none, as the absence of this one key shows.
 * A task is written as in the head of a message.
 */
export const lanesLua = /* lua */ `
-- the length of the queue keeps apart what names may contain
local function laneName(queue, task)
  return #queue .. ':' .. queue .. task
end

-- the keys of the list and of the sorted set of a lane
local function laneKeys(queue, task)
  local name = laneName(queue, task)
  return base .. ':lane:fresh:' .. name, base .. ':lane:ready:' .. name
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

-- adds members to the lane of a task: fresh ones, and others, each behind its rank
local function addToLane(queue, task, fresh, scored)
  local freshKey, readyKey = laneKeys(queue, task)
  redis.call('ZADD', base .. ':lanes', 0, laneName(queue, task))
  callInChunks('RPUSH', freshKey, fresh)
  callInChunks('ZADD', readyKey, scored)
end

-- forgets a lane from which members were removed if there are no others
local function removeEmptyLane(queue, task)
  if redis.call('EXISTS', laneKeys(queue, task)) == 0 then redis.call('ZREM', base .. ':lanes', laneName(queue, task)) end
end

local function countLane(queue, task)
  local freshKey, readyKey = laneKeys(queue, task)
  return redis.call('LLEN', freshKey) + redis.call('ZCARD', readyKey)
end

-- when a member became due; now where that is not known, or there is no member
local function dueOf(member)
  return tonumber(string.match(member or '', '^%d+:(%d+)%-?%d*:%d') or now)
end

-- the ranks of a priority; a score that this store did not write may be beyond all of them
local RANKS, PRIORITIES = rank(0, 0) - rank(1, 0), 256

-- Returns at most max fresh members of a lane that were due at that time, where one is given. They are its first ones: should the
-- clock have been set back, one that was due waits for those before it.
local function dueFresh(key, time, max)
  local members = redis.call('LRANGE', key, 0, max - 1)
  if not time then return members end
  local found = {}
  for i, member in ipairs(members) do
    if dueOf(member) > time then break end
    found[i] = member
  end
  return found
end

-- returns at most max ready members of a lane that were due at that time, where one is given, in the order of claims
local function dueReady(key, time, max)
  if not time then return redis.call('ZRANGE', key, 0, max - 1) end
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

-- returns when the oldest member of a sorted set by rank became due; the given time if none was due before it
local function oldestByRank(key, later)
  local oldest, from = later, '-inf'
  for _ = 1, PRIORITIES do
    local first = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then break end
    oldest = math.min(oldest, dueOf(first[1]))
    from = integerText((math.floor(first[2] / RANKS) + 1) * RANKS)
  end
  return oldest
end

-- returns when the oldest member of a lane became due
local function oldestOfLane(queue, task)
  local freshKey, readyKey = laneKeys(queue, task)
  return oldestByRank(readyKey, math.min(now, dueOf(redis.call('LINDEX', freshKey, 0))))
end
`
