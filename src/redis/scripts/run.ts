import { letters, overRecords } from "./records.ts"

/**
 * For starts, alone (groups that have everything in common but id, token and body) and together with claims.
 *
 * Answers `R <fence> <attempt> <retries> <crashes>`, `D`, `B <millis>`, or `L`: the task would end as WorkerLost,
 * and the call has to be made again with the message's body, for the dead letter. Nothing was written then.
 */
export const starting = /* lua */ `
-- of what is being started
local group

local function ran(record)
  return 'R ' .. record[FENCE] .. ' ' .. record[ATTEMPT] .. ' ' .. record[RETRIES] .. ' ' .. record[CRASHES]
end

-- What most starts come to: the first one of a task of which there is nothing unusual to say. Answers the record's text
-- after it, and who is told; nil where it is not so simple.
local function startFirst(value, token)
  if not group.first or string.find(value, 'PENDING - ', 1, true) ~= 1 then return nil end
  local after = string.find(value, ' ', 11, true)
  if not after or string.find(value, group.first, after, true) ~= after then return nil end
  local watchers = string.sub(value, 11, after - 1)
  return 'STARTED ' .. token .. ' ' .. watchers .. group.started .. string.sub(value, after + #group.first), watchers
end

local function startSlowly(id, token, body)
  local generation = group.generation
  local record = find(id)
  if not record then
    record = fresh(id)
    record[TASK], record[GENERATION], record[EXPIRES] = group.task, generation, group.expires
    adoptWatchers(record)
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
    record[ENDED], record[EXPIRES], record[ENQUEUED] = '-', '-', today
  end
  record[STATE], record[TOKEN], record[TIME], record[DUE] = 'STARTED', token, group.lease, '-'
  record[ATTEMPT] = integer(record[ATTEMPT] + 1)
  record[FENCE] = integer(record[FENCE] + 1)
  record[WORKER], record[PROCESS], record[RETENTION] = group.worker, group.process, group.retention
  record[LETTERS], record[ONCE], record[UNPUBLISHED] = group.letters, group.once, '-'
  if record[STARTED] == '-' then record[STARTED] = today end
  save(record)
  if group.once ~= '-' then redis.call('HSET', base .. ':body:' .. id, 'queue', group.queue, 'body', body) end
  schedule(record)
  changed(record)
  return ran(record)
end

-- '-' for a number that is none
local function field()
  local value = text()
  return value == '' and '-' or value
end

-- what starts of a task have in common, but for the generation and the time at which they expire
local function readTerms()
  return { task = text(), lease = integer(now + number()), maxCrashes = number(), retention = field(),
    letters = field() }
end

-- for starts of the first generation there is a short way
local function prepare()
  if group.generation ~= '0' or group.once ~= '-' then return end
  -- the fields after the watchers up to 'letters', before such a start and after it
  group.first = ' - ' .. group.retention .. ' - 0 0 0 0 0 - - - - - '
  group.started = ' - ' .. group.retention .. ' ' .. group.lease .. ' 0 1 0 0 1 - ' .. today .. ' ' .. group.worker
    .. ' ' .. group.process .. ' ' .. group.letters .. ' '
end
`

export const start = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    starting,
    `
local function start(id, token, body)
  local key = base .. ':task:' .. id
  local value = get(key)
  local started, watchers
  if value then started, watchers = startFirst(value, token) end
  if not started then return startSlowly(id, token, body) end
  redis.call('SET', key, started)
  if watchers ~= '-' then tellWatchers(id, watchers, false) end
  return 'R'
end

local answers = {}
while at < #ARGV do
  local worker, process = text(), text()
  group = readTerms()
  group.worker, group.process, group.queue = worker, process, text()
  group.once, group.generation = text(), text()
  local expires, bodies = number(), text() == '1'
  group.expires = expires and integer(now + expires) or '-'
  prepare()
  for i = 1, number() do answers[#answers + 1] = start(text(), text(), bodies and text()) end
end
tell()
return answers
`
  )

/** Answers one letter for each: held, asked to cancel, or lost. */
export const renew = (clustered: boolean): string =>
  overRecords(
    clustered,
    `
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
      changed(record)
    end
    save(record)
    schedule(record)
    answers[#answers + 1] = record[CANCEL] == '-' and 'H' or 'C'
  end
end
tell()
return table.concat(answers)
`
  )

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
  changed(record)
  return 'S'
end

-- What most settlements come to: the success of a run of which there is nothing unusual to say. Whether it was one.
local function succeed(id, token, time, tail, exit)
  local key = base .. ':task:' .. id
  local value = get(key)
  if not value or string.sub(value, 1, 8) ~= 'STARTED ' or string.find(value, token, 9, true) ~= 9 then return false end
  local at = 9 + #token
  local after = string.find(value, ' ', at + 1, true)
  if not after or string.byte(value, at) ~= 32 or string.find(value, tail, after, true) ~= after then return false end
  local rest = string.find(value, ' ', after + #tail, true)
  if not rest then return false end
  redis.call('SET', key, 'SUCCESS ' .. token .. ' -' .. tail .. today .. string.sub(value, rest) .. exit, 'PX', time)
  local watchers = string.sub(value, at + 1, after - 1)
  if watchers ~= '-' then tellWatchers(id, watchers, true) end
  return true
end

-- reads one settlement; answers its letter. An empty token is the claim's.
local function settle(outcome, time, tail, claim)
  local id, token = text(), text()
  if token == '' then token = claim end
  local exit, letter
  if outcome ~= 'R' and outcome ~= 'P' then exit = text() end
  if tail and succeed(id, token, time, tail, exit) then return 'S' end
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

-- the fields after the watchers up to the time, in the record of a run that may succeed the short way
local function tailOf(outcome, time)
  return outcome == 'S' and time ~= '' and time ~= '0' and ' - ' .. time .. ' '
end
`

/** For `settle`, and for the fused settle. */
export const settleFunctions: ReadonlyArray<string> = [letters, settling]

export const settle = (clustered: boolean): string =>
  overRecords(
    clustered,
    ...settleFunctions,
    `
local answers = {}
while at < #ARGV do
  local outcome, time = text(), text()
  local tail = tailOf(outcome, time)
  for i = 1, number() do answers[#answers + 1] = settle(outcome, time, tail) end
end
tell()
return table.concat(answers)
`
  )
