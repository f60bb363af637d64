/** Deadlines in Lua: the index of what the store has to end or remove at a time. */

/**
 * Lua: writes and removes the deadline of a record in the index `:deadlines`. A waiting task has one where it expires, an
 * at-most-once run at the end of its lease, and a reservation that was never published at the end of its retention.
 * Records whose retention is over are removed by the server itself.
 */
export const deadlinesLua = /* lua */ `
local function removeDeadline(record)
  if mayHaveDeadline(record) then redis.call('ZREM', base .. ':deadlines', record.id) end
end

local function setDeadline(record)
  if not mayHaveDeadline(record) then return end
  local deadline
  if record[STATE] == 'STARTED' then
    deadline = record[AT_MOST_ONCE] ~= '-' and tonumber(record[TIME])
  else
    deadline = tonumber(record[EXPIRES_AT])
    if record[UNPUBLISHED] ~= '-' and record[RETENTION] ~= '-' and record[ENQUEUED_AT] ~= '-' then
      local retainedUntil = tonumber(record[ENQUEUED_AT]) + tonumber(record[RETENTION])
      deadline = deadline and math.min(deadline, retainedUntil) or retainedUntil
    end
  end
  if deadline then
    redis.call('ZADD', base .. ':deadlines', deadline, record.id)
  else
    redis.call('ZREM', base .. ':deadlines', record.id)
  end
end
`
