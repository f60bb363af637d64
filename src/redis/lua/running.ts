import { letters, records } from "./records.ts"

/**
 * `start`: groups of starts that have everything in common but id, token and body.
 *
 * Answers `R <fence> <attempt> <retries> <crashes>`, `D`, `B <millis>`, or `L`: the task would end as WorkerLost,
 * and the call has to be made again with the message's body, for the dead letter. Nothing was written then.
 */
const starting = /* lua */ `
local group

local function ran(record)
  return 'R ' .. record[FENCE] .. ' ' .. record[ATTEMPT] .. ' ' .. record[RETRIES] .. ' ' .. record[CRASHES]
end

-- what most starts come to: the first one of a task of which there is nothing unusual to say
local function startFirst(id, token)
  if not group.first then return false end
  local key = base .. ':task:' .. id
  local value = get(key)
  if not value or string.sub(value, 1, #group.first) ~= group.first then return false end
  redis.call('SET', key, 'STARTED ' .. token .. group.started .. string.sub(value, #group.first + 1))
  changed(id)
  return true
end

local function start(id, token, body)
  local generation = group.generation
  if startFirst(id, token) then return 'R 1 1 0 0' end
  local record = find(id)
  if not record then
    record = fresh(id)
    record[TASK], record[GENERATION], record[EXPIRES] = group.task, generation, group.expires
  end
  if record[STATE] == 'STARTED' and record[TOKEN] == token then
    record[TIME] = group.lease
    save(record)
    schedule(record)
    return ran(record)
  end
  local newer = tonumber(generation) - tonumber(record[GENERATION])
  if FINAL[record[STATE]] or newer < 0 then return 'D' end
  if record[STATE] ~= 'STARTED' then
    if endOverdue(record) then return 'D' end
    if record[DUE] ~= '-' and tonumber(record[DUE]) > now then return 'B ' .. integer(record[DUE] - now) end
  else
    if tonumber(record[TIME]) > now then return 'B ' .. integer(record[TIME] - now) end
    if endOverdue(record) then return 'D' end
    record[CRASHES] = integer(record[CRASHES] + 1)
    if record[CANCEL] ~= '-' or tonumber(record[CRASHES]) >= group.maxCrashes then
      if record[CANCEL] == '-' and not body then return 'L' end
      lose(record, group.queue, body)
      return 'D'
    end
  end
  unschedule(record)
  if newer > 0 then
    record[GENERATION], record[ATTEMPT], record[RETRIES], record[CRASHES] = generation, '0', '0', '0'
    record[CANCEL], record[STARTED], record[PROGRESS] = '-', '-', '-'
  end
  record[STATE], record[TOKEN], record[TIME], record[DUE] = 'STARTED', token, group.lease, '-'
  record[ATTEMPT] = integer(record[ATTEMPT] + 1)
  record[FENCE] = integer(record[FENCE] + 1)
  record[WORKER], record[CHANNEL], record[RETENTION] = group.worker, group.channel, group.retention
  record[LETTERS], record[ONCE], record[UNPUBLISHED] = group.letters, group.once, '-'
  if record[STARTED] == '-' then record[STARTED] = today end
  save(record)
  if group.once ~= '-' then redis.call('HSET', base .. ':body:' .. id, 'queue', group.queue, 'body', body) end
  schedule(record)
  changed(id)
  return ran(record)
end

-- '-' for a number that is none
local function field()
  local value = text()
  return value == '' and '-' or value
end

local function readGroup()
  group = { worker = text(), channel = text(), task = text(), queue = text(), lease = integer(now + number()),
    once = text(), maxCrashes = number(), generation = text(), bodies = text() == '1' }
  local expires = number()
  group.expires = expires and integer(now + expires) or '-'
  group.retention, group.letters = field(), field()
  if group.generation ~= '0' or group.once ~= '-' then return end
  -- the fields from the first to 'letters', before such a start, and after its token
  group.first = 'PENDING - - ' .. group.retention .. ' - 0 0 0 0 0 - - - - - '
  group.started = ' - ' .. group.retention .. ' ' .. group.lease .. ' 0 1 0 0 1 - ' .. today .. ' ' .. group.worker
    .. ' ' .. group.channel .. ' ' .. group.letters .. ' '
end
`

export const start = (clustered: boolean): string => `${records(clustered)}${letters}${starting}
local answers = {}
while at < #ARGV do
  readGroup()
  for i = 1, number() do answers[#answers + 1] = start(text(), text(), group.bodies and text()) end
end
tell()
return answers
`

/** Answers one letter for each: held, asked to cancel, or lost. */
export const renew = (clustered: boolean): string => `${records(clustered)}
local answers = {}
while at < #ARGV do
  local id, token, lease, progress = text(), text(), number(), text()
  local record = find(id)
  if not record or record[STATE] ~= 'STARTED' or record[TOKEN] ~= token then
    answers[#answers + 1] = 'L'
  else
    record[TIME] = integer(now + lease)
    if progress ~= '' then
      record[PROGRESS] = '1'
      redis.call('SET', base .. ':progress:' .. id, progress)
      changed(id)
    end
    save(record)
    schedule(record)
    answers[#answers + 1] = record[CANCEL] == '-' and 'H' or 'C'
  end
end
tell()
return table.concat(answers)
`

/**
 * `settle`: groups of the same outcome and the same time, which is a retention or a delay. An outcome is `S` (success), `F` (failure), `L` (failure with its dead letter), `R` (retry) or `P` (put
 * back). Answers one letter: stored, cancelled, or lost.
 */
const settling = /* lua */ `
local function repeated(record, outcome, exit)
  if FINAL[record[STATE]] then
    if record[ENDED] == 'Cancelled' then return (outcome == 'R' or outcome == 'P') and 'C' or 'L' end
    local state = outcome == 'S' and 'SUCCESS' or 'FAILURE'
    return exit and record[STATE] == state and exitOf(record) == exit and 'S' or 'L'
  end
  return outcome == (record[DUE] == '-' and 'P' or 'R') and 'S' or 'L'
end

local function putBack(record, outcome, after)
  if record[CANCEL] ~= '-' then
    finish(record, 'FAILURE', nil, 'Cancelled')
    return 'C'
  end
  unschedule(record)
  close(record)
  if outcome == 'R' then
    record[RETRIES] = integer(record[RETRIES] + 1)
    record[DUE] = integer(now + after)
  else
    record[ATTEMPT] = integer(record[ATTEMPT] - 1)
  end
  record[STATE] = record[RETRIES] == '0' and 'PENDING' or 'RETRY'
  record[ONCE] = '-'
  save(record)
  schedule(record)
  changed(record.id)
  return 'S'
end

-- what most settlements come to: the success of a run of which there is nothing unusual to say
local function succeed(id, token, time, exit)
  local key = base .. ':task:' .. id
  local value = get(key)
  local head = 'STARTED ' .. token .. ' - ' .. time .. ' '
  local next = #head + #today
  if not value or time == '' or time == '0' or string.sub(value, 1, #head) ~= head
    or string.sub(value, next + 1, next + 1) ~= ' ' then return false end
  redis.call('SET', key,
    'SUCCESS' .. string.sub(head, 8) .. today .. string.sub(value, next + 1) .. exit, 'PX', time)
  changed(id, true)
  return true
end

-- reads one settlement; answers its letter
local function settle(outcome, time)
  local id, token = text(), text()
  local exit, letter
  if outcome ~= 'R' and outcome ~= 'P' then exit = text() end
  if outcome == 'S' and succeed(id, token, time, exit) then return 'S' end
  if outcome == 'L' then letter = { reason = text(), queue = text(), body = text(), keep = number() } end
  local record = find(id)
  if not record or record[TOKEN] ~= token then return 'L' end
  if record[STATE] ~= 'STARTED' then return repeated(record, outcome, exit) end
  if not exit then return putBack(record, outcome, tonumber(time)) end
  record[RETENTION] = time == '' and '-' or time
  if letter then bury(record, letter.queue, letter.body, letter.reason, exit, letter.keep) end
  finish(record, outcome == 'S' and 'SUCCESS' or 'FAILURE', exit)
  return 'S'
end
`

/** For `settle`, and for the fused settle. */
export const settleFunctions = (clustered: boolean): string => records(clustered) + letters + settling

export const settle = (clustered: boolean): string => `${settleFunctions(clustered)}
local answers = {}
while at < #ARGV do
  local outcome, time = text(), text()
  for i = 1, number() do answers[#answers + 1] = settle(outcome, time) end
end
tell()
return table.concat(answers)
`
