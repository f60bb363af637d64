/** Ends by the passing of time, in Lua, and the dead letters that the store writes for runs. */

/**
 * Lua: writes the dead letter of a run, ends a run whose worker is lost, and ends a task that lapsed (rules L1 to L3 of
 * `internal/task/transitions.ts`). Needs `deadLettersLua`.
 */
export const lapseLua = /* lua */ `
local function addRunDeadLetter(record, queue, body, reason, exit, retention)
  local id = record.id .. ':' .. record[GENERATION]
  if record[INCARNATION] ~= '-' then id = id .. '.' .. record[INCARNATION] end
  removeDeadLetter(id)
  local fields = { 'taskId', record.id, 'generation', record[GENERATION], 'queue', queue, 'reason', reason,
    'body', body, 'attempts', record[ATTEMPT], 'fence', record[FENCE], 'retention', record[RETENTION] }
  local function add(name, value)
    if value and value ~= '-' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  add('incarnation', record[INCARNATION])
  add('exit', exit)
  add('worker', record[WORKER])
  addDeadLetter(id, retention, record[TASK], fields)
end

-- L3, S9
local function endLostRun(record, queue, body)
  addRunDeadLetter(record, queue, body, 'WorkerLost', nil, tonumber(record[DEAD_LETTER_RETENTION]))
  endTask(record, 'FAILURE', nil, 'WorkerLost')
end

-- how the task ended, if it lapsed and was ended here; otherwise false
local function endIfLapsed(record)
  if TERMINAL[record[STATE]] or not mayHaveDeadline(record) then return false end
  if record[STATE] == 'STARTED' then
    if tonumber(record[TIME]) > now then return false end
    -- L2
    if record[STOP] ~= '-' then
      endTask(record, 'FAILURE', nil, 'Cancelled')
      return 'Cancelled'
    end
    -- L3
    if record[AT_MOST_ONCE] == '-' then return false end
    local v = redis.call('HMGET', base .. ':body:' .. record.id, 'queue', 'body')
    endLostRun(record, v[1] or '', v[2] or 't')
    return 'WorkerLost'
  end
  -- L1
  if record[EXPIRES_AT] == '-' or tonumber(record[EXPIRES_AT]) > now then return false end
  endTask(record, 'FAILURE', nil, 'Expired')
  return 'Expired'
end
`
