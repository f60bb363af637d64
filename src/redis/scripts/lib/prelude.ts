/** What every script begins with. */
import { countGrowthLua } from "./fullMemory.ts"

/** How long the mark of a process stays without a ping. */
export const PROCESS_MARK_MILLIS = 60_000

/** Lua: the shard's key prefix, the server's clock, and readers that take the arguments one by one. */
export const preludeLua = /* lua */ `
local base = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local position = 0
local function nextText()
  position = position + 1
  return ARGV[position]
end
-- an empty argument is no number
local function nextNumber()
  position = position + 1
  return tonumber(ARGV[position])
end
local function integerText(value)
  return string.format('%.0f', value)
end
${countGrowthLua}`

/**
 * Lua: publishes a message on the channel of a process.
 *
 * A message that reached no subscriber marks the process, and its next ping makes it resync. On a cluster the number
 * of receivers counts one node only, so no process is marked. A user who may use no channel sends nothing, and fails nothing:
 * what the script writes stands. It returns the number of receivers; a denied message has 0.
 */
export const notifyLua = (clustered: boolean): string => /* lua */ `
local function notify(process, message)
  local channel = string.match(base, '^{(.*):%d+}$') .. ':process:' .. process
  local receivers = redis.pcall('PUBLISH', channel, message)
  if receivers == 0 and not ${clustered} then
    redis.call('SET', base .. ':alive:' .. process, 'missed', 'PX', ${PROCESS_MARK_MILLIS})
  end
  return type(receivers) == 'number' and receivers or 0
end
`
