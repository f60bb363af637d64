/**
 * What scripts write while the server's memory is full (`maxmemory`).
 *
 * A full server refuses every command that may add to it, until the script has written something. So scripts that serve
 * tasks which the store already has write first: outcomes are stored, leases are renewed, and messages are acked, which
 * makes room again. Scripts that bring new tasks do not, and fail with OOM.
 *
 * Outcomes may be larger than the messages that they replace. While the memory is full, scripts count the bytes that they add
 * and free, in one key of the shard. Above `MAX_OVERRUN` no run is started, and so the memory passes `maxmemory` by no more
 * than that and what the runs that are open already return.
 */

/** How many bytes scripts may add to a shard of a full server before its runs are refused. */
export const MAX_OVERRUN = 16 * 1024 * 1024

/** About what an entry of a hash, a sorted set or the expiry of a key takes besides its text. */
const ENTRY_BYTES = 100

/**
 * Lua: lets the script write while the memory is full, and counts what it adds then. It has to come before everything that
 * writes, and `saveOverrun` at the end.
 *
 * Writing an empty text at the beginning of a key changes nothing, but a full server refuses it; its answer is the length of
 * the count.
 */
export const whenFullLua = /* lua */ `
local overrunKey = base .. ':overrun'
local overrunLength = redis.pcall('SETRANGE', overrunKey, 0, '')
isFull = type(overrunLength) == 'table' and string.find(overrunLength.err or '', 'OOM', 1, true) and true or false
if isFull then
  redis.call('DEL', base .. ':none')
elseif type(overrunLength) == 'number' and overrunLength > 0 then
  redis.call('DEL', overrunKey)
end

-- whether no run may be started
local function isOverrun()
  return isFull and tonumber(redis.call('GET', overrunKey) or '0') > ${MAX_OVERRUN}
end

local function saveOverrun()
  if isFull and grownBytes ~= 0 then redis.call('INCRBY', overrunKey, integerText(grownBytes)) end
end
`

/** Lua: counts bytes while the memory is full. It is part of every script, and does nothing where the memory is not full. */
export const countGrowthLua = /* lua */ `
local isFull, grownBytes = false, 0

-- a text that replaces another one, or none; with as many new entries besides
local function countText(after, before, entries)
  if isFull then grownBytes = grownBytes + #after - #(before or '') + ${ENTRY_BYTES} * (entries or 0) end
end

-- fields that are removed from a hash
local function countRemoved(key, fields)
  if not isFull then return end
  for _, field in ipairs(fields) do
    grownBytes = grownBytes - redis.call('HSTRLEN', key, field) - ${ENTRY_BYTES}
  end
end
`
