import { clock } from "./prelude.ts"
import { letters, overRecords } from "./records.ts"

/**
 * Reads, and registers the process with what is not final, if one is given: for all changes (`a`), or for the end
 * alone (`e`). Answers the text of each record, and then the progress of those that have some.
 */
export const read = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    `
local process, kind = text(), text()
local answers, progress = {}, {}

-- nil where it has to be looked at more closely, or there is none
local function readPlain(id, value)
  local watchers, after = string.match(value, '^[PSRF]%u+ %S+ (%S+)() %- ')
  if not after then return nil end
  if process == '' or FINAL[string.sub(value, 1, 7)] then return value end
  local more = watchedBy(watchers, kind, process)
  if more then
    redis.call('SET', taskKey(id), string.sub(value, 1, after - #watchers - 1) .. more .. string.sub(value, after))
  end
  return value
end

local function readAny(id)
  local record = find(id)
  -- it may have to be ended first
  if record and endOverdue(record) then record = find(id) end
  if not record then
    if process ~= '' then watchEarly(id, kind, process) end
    -- what is there and no record is answered as it is, and found to be none
    return get(taskKey(id)) or redis.call('EXISTS', taskKey(id)) == 1 and '' or false
  end
  if process ~= '' and not FINAL[record[STATE]] then
    local more = watchedBy(record[WATCH], kind, process)
    if more then
      record[WATCH] = more
      redis.call('SET', taskKey(id), textOf(record, exitOf(record)), 'KEEPTTL')
    end
  end
  if record[PROGRESS] ~= '-' then
    progress[#progress + 1] = redis.call('GET', base .. ':progress:' .. id)
  end
  return record.value
end

local keys, seen = {}, {}
for i = at + 1, #ARGV do keys[#keys + 1] = base .. ':task:' .. ARGV[i] end
local values = getAll(keys)
for i = 1, #keys do
  local id = text()
  -- what stands twice was changed since it was read
  local value = values[i] and not seen[id] and readPlain(id, values[i]) or readAny(id)
  seen[id] = true
  answers[i] = value
end
for _, one in ipairs(progress) do answers[#answers + 1] = one end
tell()
return answers
`
  )

/** Takes registrations back. */
export const unwatch = (clustered: boolean): string =>
  overRecords(
    clustered,
    `
local process = text()
while at < #ARGV do
  local id = text()
  local record = find(id)
  if record and record[WATCH] ~= '-' then
    local left = unwatchedBy(record[WATCH], process)
    if left ~= record[WATCH] then
      record[WATCH] = left
      redis.call('SET', taskKey(id), textOf(record, exitOf(record)), 'KEEPTTL')
    end
  elseif not record and isEarly() then
    local key = base .. ':early:' .. id
    local watchers = get(key)
    local left = watchers and unwatchedBy(watchers, process)
    if left == '-' then
      redis.call('DEL', key)
    elseif left then
      redis.call('SET', key, left, 'KEEPTTL')
    end
  end
end
`
  )

/** Ends waiting tasks, asks running ones to stop. */
export const cancel = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    `
local answers = {}
while at < #ARGV do
  local id = text()
  local record = find(id)
  local answer
  if not record then
    answer = 'Unknown'
  elseif FINAL[record[STATE]] then
    answer = 'AlreadyDone'
  elseif record[STATE] == 'STARTED' then
    record[CANCEL] = '1'
    save(record)
    if record[PROCESS] ~= '-' then hint(record[PROCESS], id) end
    changed(record)
    answer = 'Requested'
  elseif endOverdue(record) then
    answer = 'AlreadyDone'
  else
    finish(record, 'FAILURE', nil, 'Cancelled')
    answer = 'Cancelled'
  end
  answers[#answers + 1] = answer
end
tell()
return answers
`
  )

/** Removes what is final, marks what is not. The key is free at once. */
export const forget = (clustered: boolean): string =>
  overRecords(
    clustered,
    `
local foreign = {}
while at < #ARGV do
  local record = find(text())
  if record then
    if record[FOREIGN] ~= '-' then
      foreign[#foreign + 1] = record[KEY]
      foreign[#foreign + 1] = record.id
      record[KEY], record[FOREIGN] = '-', '-'
    end
    if FINAL[record[STATE]] then
      drop(record)
    else
      freeKey(record)
      record[KEY], record[ENDED] = '-', 'Forgotten'
      ended(record)
      save(record)
    end
  end
end
tell()
return foreign
`
  )

/**
 * Ends and removes what is overdue; answers how many, and then the keys of other shards that are to be freed, each
 * with the id that held it.
 */
export const sweep = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    `
local limit = number()
local function due(index)
  return redis.call('ZRANGEBYSCORE', base .. index, '-inf', now, 'LIMIT', 0, limit)
end
local swept = 0
for _, id in ipairs(due(':deadlines')) do
  local record = find(id)
  if not record then
    redis.call('ZREM', base .. ':deadlines', id)
  elseif not endOverdue(record) then
    if record[UNPUBLISHED] ~= '-' and not FINAL[record[STATE]] then drop(record) else schedule(record) end
  end
  swept = swept + 1
end
for _, id in ipairs(due(':letters-until')) do
  if not dropLetter(id) then redis.call('ZREM', base .. ':letters-until', id) end
  swept = swept + 1
end
local workers = redis.call('HGETALL', base .. ':workers')
for i = 1, #workers, 2 do
  if tonumber(string.match(workers[i + 1], '^%d+ %d+ (%d+)') or '0') <= now then
    redis.call('HDEL', base .. ':workers', workers[i])
    swept = swept + 1
  end
end
local answer = { swept }
for _, member in ipairs(due(':foreign')) do
  redis.call('ZREM', base .. ':foreign', member)
  local ok, pair = pcall(cjson.decode, member)
  if ok and type(pair) == 'table' and type(pair[1]) == 'string' and type(pair[2]) == 'string' then
    answer[#answer + 1] = pair[1]
    answer[#answer + 1] = pair[2]
  end
end
tell()
return answer
`
  )

/** A worker is kept as "<started> <seen> <until> <its description>". */
export const heartbeat = `${clock}
local id, ttl, description = text(), number(), text()
local started = now
local known = redis.call('HGET', base .. ':workers', id)
if known then
  local from, ends = string.match(known, '^(%d+) %d+ (%d+) ')
  if from and tonumber(ends) > now then started = tonumber(from) end
end
redis.call('HSET', base .. ':workers', id,
  integer(started) .. ' ' .. integer(now) .. ' ' .. integer(now + ttl) .. ' ' .. description)
`

export const farewell = /* lua */ `redis.call('HDEL', KEYS[1] .. ':workers', ARGV[1])`

export const workers = `${clock}
local found = {}
local all = redis.call('HGETALL', base .. ':workers')
for i = 2, #all, 2 do
  if tonumber(string.match(all[i], '^%d+ %d+ (%d+) ') or '0') > now then found[#found + 1] = all[i] end
end
return found
`
