/** How long the mark of a process stays without a ping. */
const ALIVE_MILLIS = 60_000

/** Begins every script: the shard's keys, the server's clock, and the arguments one by one. */
export const clock = /* lua */ `
local base = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local at = 0
local function text()
  at = at + 1
  return ARGV[at]
end
-- '' stands for no number
local function number()
  at = at + 1
  return tonumber(ARGV[at])
end
local function integer(value)
  return string.format('%.0f', value)
end
`

/**
 * Tells the processes that asked. A message that reached nobody is noted where its process finds it with the next
 * ping; on a cluster the number of receivers counts one node only, and says nothing.
 */
export const send = (clustered: boolean): string => /* lua */ `
local function send(process, message)
  local channel = string.match(base, '^{(.*):%d+}$') .. ':process:' .. process
  if redis.call('PUBLISH', channel, message) == 0 and not ${clustered} then
    redis.call('SET', base .. ':alive:' .. process, 'missed', 'PX', ${ALIVE_MILLIS})
  end
end
`

/** A process speaks to itself, and hears whether it missed anything, or the server has forgotten it. */
export const ping = (clustered: boolean): string => /* lua */ `
local base, process, turn = KEYS[1], ARGV[1], ARGV[2]
local key = base .. ':alive:' .. process
${send(clustered)}
local alive = redis.call('GETSET', key, 'heard')
redis.call('PEXPIRE', key, ${ALIVE_MILLIS})
send(process, cjson.encode({'ping', turn, alive == 'heard'}))
`
