import { FIELDS, UNUSUAL } from "../RecordText.ts"
import { clock, send } from "./prelude.ts"

/** How long word stays of who waits for a task that is not there yet. */
const EARLY_MILLIS = 86_400_000

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

const placeOf: ReadonlyMap<string, number> = new Map(
  FIELDS.map((field, index) => [field.toUpperCase(), index + 1])
)

/**
 * A field is written `record[STATE]`, and is a number in the script: as a local, each would be carried into every
 * function that names it, each time a script runs.
 */
const withPlaces = (lua: string): string =>
  lua.replace(/\[([A-Z]+)\]/g, (text, name) => (placeOf.has(name) ? `[${placeOf.get(name)}]` : text))

/**
 * Records: one text each (see `Record.ts`), removed by the server itself when its retention is over.
 *
 * What waits for a time that is not the end of a retention lies in one index, ':deadlines': the expiry of a waiting
 * task, the lapse of an at-most-once run, the retention of a reservation that was never published.
 */
const functions = /* lua */ `
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

-- the same of many keys
local function getAll(keys)
  local values = {}
  for i = 1, #keys, 4000 do
    local some = redis.call('MGET', unpack(keys, i, math.min(i + 3999, #keys)))
    for j, value in ipairs(some) do values[i + j - 1] = value end
  end
  return values
end

-- a record of its text; what was edited by hand into something else counts as not there
local function parsed(id, value)
  local record = { string.match(value, '^${FIELDS.map(patternOf).join(" ")}\\n') }
  if not record[WIDTH] then return nil end
  record.id = id
  record.value = value
  return record
end

local function find(id)
  local value = get(base .. ':task:' .. id)
  return value and parsed(id, value) or nil
end

local function exitOf(record)
  return string.sub(record.value, string.find(record.value, '\\n', 1, true) + 1)
end

local function textOf(record, exit)
  record[PLAIN] = (${UNUSUAL.map((field) => `record[${field.toUpperCase()}] == '-'`).join(" and ")}) and '-' or '+'
  return table.concat(record, ' ', 1, WIDTH) .. '\\n' .. (exit or '')
end

local function save(record)
  redis.call('SET', base .. ':task:' .. record.id, textOf(record))
end

-- whether it may lie in the index of deadlines
local function isTimed(record)
  return record[EXPIRES] ~= '-' or record[UNPUBLISHED] ~= '-' or record[ONCE] ~= '-'
end

-- what each process is told at the end of the script
local hints = {}
local function hint(process, id)
  local ids = hints[process]
  if ids then ids[#ids + 1] = id else hints[process] = { 'changed', id } end
end

local function tellWatchers(id, watchers, isLast)
  for kind, process in string.gmatch(watchers, '(%a)([^,]+)') do
    if isLast or kind == 'a' then hint(process, id) end
  end
end

local function changed(record)
  if record[WATCH] ~= '-' then tellWatchers(record.id, record[WATCH], false) end
end

-- the last of all changes, after which nobody waits
local function ended(record)
  if record[WATCH] == '-' then return end
  tellWatchers(record.id, record[WATCH], true)
  record[WATCH] = '-'
end

local function tell()
  for process, ids in pairs(hints) do send(process, cjson.encode(ids)) end
end

-- the watchers with one more; nil where that changes nothing
local function watchedBy(watchers, kind, process)
  if watchers == '-' then return kind .. process end
  local listed = ',' .. watchers .. ','
  if string.find(listed, ',a' .. process .. ',', 1, true) then return nil end
  local at = string.find(listed, ',e' .. process .. ',', 1, true)
  if not at then return watchers .. ',' .. kind .. process end
  if kind == 'e' then return nil end
  return string.sub(watchers, 1, at - 1) .. 'a' .. string.sub(watchers, at + 1)
end

local function unwatchedBy(watchers, process)
  local left = {}
  for one in string.gmatch(watchers, '[^,]+') do
    if string.sub(one, 2) ~= process then left[#left + 1] = one end
  end
  return #left == 0 and '-' or table.concat(left, ',')
end

-- Who waits for a task that is not there yet lies under a key of its own. Nearly always there is none, which a single
-- key tells for all.
local early
local function isEarly()
  if early == nil then early = redis.call('EXISTS', base .. ':early') == 1 end
  return early
end

local function watchEarly(id, kind, process)
  local key = base .. ':early:' .. id
  local watchers = watchedBy(get(key) or '-', kind, process)
  if watchers then redis.call('SET', key, watchers, 'PX', ${EARLY_MILLIS}) end
  redis.call('SET', base .. ':early', '1', 'PX', ${EARLY_MILLIS})
end

-- a record that comes to be takes on those who waited for it
local function adoptWatchers(record)
  if not isEarly() then return end
  local key = base .. ':early:' .. record.id
  local watchers = get(key)
  if not watchers then return end
  redis.call('DEL', key)
  record[WATCH] = watchers
  changed(record)
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
  ended(record)
end

-- the terminal write
local function finish(record, state, exit, why)
  if record[ENDED] == 'Forgotten' then return drop(record) end
  unschedule(record)
  close(record)
  record[STATE], record[TIME], record[ENDED] = state, today, why or '-'
  ended(record)
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
end
`

/** The beginning of a script over records, and the rest of it. */
export const overRecords = (clustered: boolean, ...rest: ReadonlyArray<string>): string =>
  withPlaces(`${clock}${send(clustered)}${functions}${rest.join("")}`)

/**
 * Dead letters: one hash a letter, an index of all and one for each task, newest last, and one by the time at which
 * they go. Letters of the same moment keep their order by a number.
 */
export const letters = /* lua */ `
local function letterKey(id)
  return base .. ':letter:' .. id
end

-- something of another kind is no letter
local function fieldsOf(id, ...)
  local values = redis.pcall('HMGET', letterKey(id), ...)
  return values.err and {} or values
end

local function dropLetter(id)
  local v = fieldsOf(id, 'member', 'task')
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
  local v = fieldsOf(id, 'member', 'until')
  return v[1] and (tonumber(v[2] or nil) or now + 1) > now
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
