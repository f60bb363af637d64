/**
 * What scripts write while the server's memory is full (`maxmemory`).
 *
 * A full server refuses every command that may add to it, until a script has written something. So scripts that add nothing but
 * what a run owes write first: outcomes are stored, leases are renewed, and messages are acked, which makes room again.
 * Scripts that bring new tasks do not, and fail with OOM.
 *
 * Outcomes may be larger than the messages that they replace. While the memory is full, scripts count the bytes that outcomes
 * add and acks free, in one key of the shard. At `MAX_OVERRUN`, claims are refused, and so the memory passes `maxmemory` by
 * no more than that and what the tasks that run already return.
 */

/** How many bytes outcomes may add to a shard of a full server before its claims are refused. */
export const MAX_OVERRUN = 16 * 1024 * 1024

/**
 * Lua: lets the script write while the memory is full. It has to come before everything that writes.
 *
 * Writing an empty text at the beginning of a key changes nothing, but a full server refuses it; its answer is the length of
 * the count.
 */
export const whenFullLua = /* lua */ `
local overrunKey = base .. ':overrun'
local overrunLength = redis.pcall('SETRANGE', overrunKey, 0, '')
local isFull = type(overrunLength) == 'table' and string.find(overrunLength.err or '', 'OOM', 1, true)
if isFull then
  redis.call('DEL', base .. ':none')
elseif type(overrunLength) == 'number' and overrunLength > 0 then
  redis.call('DEL', overrunKey)
end
`

/** Lua: counts what the script adds or frees while the memory is full. Needs `whenFullLua`. */
export const overrunLua = /* lua */ `
local grownBytes = 0

local function countRemoved(key, fields)
  for _, field in ipairs(fields) do grownBytes = grownBytes - redis.call('HSTRLEN', key, field) end
end

local function saveOverrun()
  if isFull and grownBytes ~= 0 then redis.call('INCRBY', overrunKey, integerText(grownBytes)) end
end
`

/** Lua: whether claims are refused. Needs `whenFullLua`. */
export const isOverrunLua = /* lua */ `
local function isOverrun()
  return isFull and tonumber(redis.call('GET', overrunKey) or '0') > ${MAX_OVERRUN}
end
`
