import { FIELDS, UNUSUAL } from "../Record.ts"
import { clock, send } from "./clock.ts"

/** How long a registration stays that nobody takes back. */
const WATCH_MILLIS = 86_400_000

/** The fields of a new record that are not '-'. */
const initially: Readonly<Record<string, string>> = {
  state: "PENDING",
  generation: "0",
  attempt: "0",
  retries: "0",
  crashes: "0",
  fence: "0"
}

const COUNTS: ReadonlySet<string> = new Set(["generation", "attempt", "retries", "crashes", "fence"])
const NUMBERS: ReadonlySet<string> = new Set(["retention", "time", "due", "letters", "expires"])

const patternOf = (field: string): string =>
  COUNTS.has(field) ? "(%d+)" : NUMBERS.has(field) ? "(%-?%d*)" : "(%S+)"

const upper = (field: string): string => field.toUpperCase()

/**
 * Records: one text each (see `Record.ts`), removed by the server itself when its retention is over.
 *
 * What waits for a time that is not the end of a retention lies in one index, ':deadlines': the expiry of a waiting
 * task, the lapse of an at-most-once run, the retention of a reservation that was never published.
 */
export const records = (clustered: boolean): string => `${clock}${send(clustered)}
local ${FIELDS.map(upper).join(", ")} = ${FIELDS.map((_, i) => i + 1).join(", ")}
local WIDTH = ${FIELDS.length}
local FINAL = { SUCCESS = true, FAILURE = true }
local today = integer(now)

local function taskKey(id)
  return base .. ':task:' .. id
end

local function fresh(id)
  return { ${FIELDS.map((field) => `'${initially[field] ?? "-"}'`).join(", ")}, id = id }
end

-- a text; false where there is none, or something of another kind
local function get(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value
end

-- what was edited by hand into something else counts as not there
local function find(id)
  local value = get(base .. ':task:' .. id)
  if not value then return nil end
  local record = { string.match(value, '^${FIELDS.map(patternOf).join(" ")}\\n') }
  if not record[WIDTH] then return nil end
  record.id = id
  record.value = value
  return record
end

local function exitOf(record)
  return string.sub(record.value, string.find(record.value, '\\n', 1, true) + 1)
end

local function textOf(record, exit)
  record[PLAIN] = (${UNUSUAL.map((field) => `record[${upper(field)}] == '-'`).join(" and ")}) and '-' or '+'
  return table.concat(record, ' ', 1, WIDTH) .. '\\n' .. (exit or '')
end

local function save(record)
  redis.call('SET', base .. ':task:' .. record.id, textOf(record))
end

-- whether it may lie in the index of deadlines
local function isTimed(record)
  return record[EXPIRES] ~= '-' or record[UNPUBLISHED] ~= '-' or record[ONCE] ~= '-'
end

-- ids that changed; their watchers are told at the end of the script
local told, last = {}, {}
local function changed(id, isLast)
  told[#told + 1] = id
  if isLast then last[id] = true end
end

local hints = {}
local function hint(channel, id)
  local ids = hints[channel]
  if not ids then
    ids = { 'changed' }
    hints[channel] = ids
  end
  ids[#ids + 1] = id
end

local function tell()
  if #told > 0 then
    local keys = {}
    for i, id in ipairs(told) do keys[i] = base .. ':watch:' .. id end
    local watchers = redis.call('MGET', unpack(keys))
    local over = {}
    for i, id in ipairs(told) do
      if watchers[i] then
        for channel in string.gmatch(watchers[i], '%S+') do hint(channel, id) end
        if last[id] then over[#over + 1] = keys[i] end
      end
    end
    if #over > 0 then redis.call('DEL', unpack(over)) end
  end
  for channel, ids in pairs(hints) do send(channel, cjson.encode(ids)) end
end

local function watch(id, channel)
  local key = base .. ':watch:' .. id
  if redis.call('SET', key, channel, 'NX', 'PX', ${WATCH_MILLIS}) then return end
  local channels = redis.call('GET', key)
  if not string.find(' ' .. channels .. ' ', ' ' .. channel .. ' ', 1, true) then
    channels = channels .. ' ' .. channel
  end
  redis.call('SET', key, channels, 'PX', ${WATCH_MILLIS})
end

local function unschedule(record)
  if isTimed(record) then redis.call('ZREM', base .. ':deadlines', record.id) end
end

local function schedule(record)
  if not isTimed(record) then return end
  local deadline
  if record[STATE] == 'STARTED' then
    deadline = record[ONCE] ~= '-' and tonumber(record[TIME])
  else
    deadline = tonumber(record[EXPIRES])
    if record[UNPUBLISHED] ~= '-' and record[RETENTION] ~= '-' and record[ENQUEUED] ~= '-' then
      local stranded = tonumber(record[ENQUEUED]) + tonumber(record[RETENTION])
      deadline = deadline and math.min(deadline, stranded) or stranded
    end
  end
  if deadline then
    redis.call('ZADD', base .. ':deadlines', deadline, record.id)
  else
    redis.call('ZREM', base .. ':deadlines', record.id)
  end
end

local function keyOf(record)
  return base .. ':key:' .. record[KEY]
end

-- a key that may lie in another shard is freed by the next sweep after that time
local function freeKey(record, when)
  if record[KEY] == '-' then return end
  if record[FOREIGN] ~= '-' then
    redis.call('ZADD', base .. ':foreign', when, cjson.encode({ record[KEY], record.id }))
  elseif redis.call('GET', keyOf(record)) == record.id then
    redis.call('DEL', keyOf(record))
  end
end

-- what an open run keeps besides its record
local function close(record)
  if record[ONCE] ~= '-' then redis.call('DEL', base .. ':body:' .. record.id) end
end

local function drop(record)
  redis.call('DEL', taskKey(record.id))
  if record[PROGRESS] ~= '-' then redis.call('DEL', base .. ':progress:' .. record.id) end
  unschedule(record)
  close(record)
  freeKey(record, now)
  changed(record.id, true)
end

-- the terminal write
local function finish(record, state, exit, ended)
  if record[ENDED] == 'Forgotten' then return drop(record) end
  unschedule(record)
  close(record)
  record[STATE], record[TIME], record[ENDED] = state, today, ended or '-'
  local retention = record[RETENTION]
  if retention == '-' then
    redis.call('SET', taskKey(record.id), textOf(record, exit))
  elseif tonumber(retention) <= 0 then
    return drop(record)
  else
    redis.call('SET', taskKey(record.id), textOf(record, exit), 'PX', retention)
    if record[PROGRESS] ~= '-' then redis.call('PEXPIRE', base .. ':progress:' .. record.id, retention) end
    if record[KEY] ~= '-' then
      if record[FOREIGN] ~= '-' then
        freeKey(record, now + retention)
      else
        redis.call('PEXPIRE', keyOf(record), retention)
      end
    end
  end
  changed(record.id, true)
end
`

/**
 * Dead letters: one hash a letter, an index of all and one for each task, newest last, and one by the time at which
 * they go. Letters of the same moment keep their order by a number.
 */
export const letters = /* lua */ `
local function letterKey(id)
  return base .. ':letter:' .. id
end

local function dropLetter(id)
  local v = redis.call('HMGET', letterKey(id), 'member', 'task')
  if not v[1] then return false end
  redis.call('DEL', letterKey(id))
  redis.call('ZREM', base .. ':letters', v[1])
  if v[2] then redis.call('ZREM', base .. ':letters:' .. v[2], v[1]) end
  redis.call('ZREM', base .. ':letters-until', id)
  return true
end

local function addLetter(id, keep, task, fields)
  local member = string.format('%015.0f', redis.call('INCR', base .. ':letters-order')) .. ':' .. id
  local key = letterKey(id)
  redis.call('HSET', key, 'id', id, 'member', member, 'at', today, unpack(fields))
  redis.call('ZADD', base .. ':letters', now, member)
  if task then
    redis.call('HSET', key, 'task', task)
    redis.call('ZADD', base .. ':letters:' .. task, now, member)
  end
  if keep then
    redis.call('HSET', key, 'until', now + keep)
    redis.call('ZADD', base .. ':letters-until', now + keep, id)
  end
end

local function hasLetter(id)
  local v = redis.call('HMGET', letterKey(id), 'member', 'until')
  return v[1] and (not v[2] or tonumber(v[2]) > now)
end

local function bury(record, queue, body, reason, exit, keep)
  local id = record.id .. ':' .. record[GENERATION]
  dropLetter(id)
  local fields = { 'taskId', record.id, 'generation', record[GENERATION], 'queue', queue, 'reason', reason,
    'body', body, 'attempts', record[ATTEMPT], 'fence', record[FENCE], 'retention', record[RETENTION] }
  local function add(name, value)
    if value and value ~= '-' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  add('exit', exit)
  add('worker', record[WORKER])
  addLetter(id, keep, record[TASK], fields)
end

local function lose(record, queue, body)
  if record[CANCEL] ~= '-' then return finish(record, 'FAILURE', nil, 'Cancelled') end
  bury(record, queue, body, 'WorkerLost', nil, tonumber(record[LETTERS]))
  finish(record, 'FAILURE', nil, 'WorkerLost')
end

-- ends what expired while it waited, and a lost run that may not be repeated
local function endOverdue(record)
  if FINAL[record[STATE]] or not isTimed(record) then return false end
  if record[STATE] == 'STARTED' then
    if record[ONCE] == '-' or tonumber(record[TIME]) > now then return false end
    local v = redis.call('HMGET', base .. ':body:' .. record.id, 'queue', 'body')
    lose(record, v[1] or '', v[2] or 't')
    return true
  end
  if record[EXPIRES] == '-' or tonumber(record[EXPIRES]) > now then return false end
  finish(record, 'FAILURE', nil, 'Expired')
  return true
end
`
