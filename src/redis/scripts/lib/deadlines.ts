/** Deadlines in Lua: the index of what the store has to end or remove at a time. */

/**
 * Lua: writes and removes the deadline of a record in the index `:deadlines`. A waiting task has one where it expires, a
 * reservation at the end of its time, and a run that ends with its lease, because it is of an at-most-once task or was asked
 * to stop, at the end of the lease. Records whose retention is over are removed by the server itself.
 */
export const deadlinesLua = /* lua */ `
local function removeDeadline(record)
  if mayHaveDeadline(record) then redis.call('ZREM', base .. ':deadlines', record.id) end
end

local function setDeadline(record)
  if not mayHaveDeadline(record) then return end
  local deadline
  if record[STATE] == 'STARTED' then
    deadline = (record[AT_MOST_ONCE] ~= '-' or record[STOP] ~= '-') and tonumber(record[TIME])
  else
    deadline = tonumber(record[EXPIRES_AT])
    local reservedUntil = tonumber(record[RESERVED_UNTIL])
    if reservedUntil then deadline = deadline and math.min(deadline, reservedUntil) or reservedUntil end
  end
  if deadline then
    redis.call('ZADD', base .. ':deadlines', deadline, record.id)
  else
    redis.call('ZREM', base .. ':deadlines', record.id)
  end
end
`
