/** Publishing messages: for `publish`, and for the fused enqueue. Encoding and Lua. */
import type { Envelope } from "../../../BrokerDriver.ts"
import * as defaults from "../../../internal/defaults.ts"
import { millis } from "../../scriptArguments.ts"

/** Encodes what neighbouring messages may have in common. */
export const encodeMessageHead = ({ delayMillis, priority, queue }: Envelope): ReadonlyArray<string> => [
  queue,
  `${Math.round(priority)}`,
  millis(delayMillis)
]

/**
 * Lua: publishes messages of the same queue, priority and delay, given their texts, and their members where those are
 * reserved already. Needs `queuesLua`, whose `sendDueTimes` has to end the script.
 */
export const publishesLua = /* lua */ `
local function reserveMembers(count, priority, delay)
  local order = redis.call('INCRBY', base .. ':messages-order', count) - count
  local members, tail = {}, memberOf('', now + delay, priority)
  for i = 1, count do members[i] = string.format('%015.0f', order + i) .. tail end
  return members
end

local function publish(queue, priority, delay, values, members)
  local due, texts = now + delay, {}
  members = members or reserveMembers(#values, priority, delay)
  for i, value in ipairs(values) do
    texts[2 * i - 1] = numberOf(members[i])
    texts[2 * i] = value
  end
  callInChunks('HSET', queueKey(queue, 'texts'), texts)
  if delay == 0 and priority == ${defaults.priority} then
    callInChunks('RPUSH', queueKey(queue, 'fresh'), members)
    return wakeIdle(queue, #values)
  end
  local scored = {}
  local score = integerText(delay > 0 and due or rank(priority, due))
  for i, member in ipairs(members) do
    scored[2 * i - 1] = score
    scored[2 * i] = member
  end
  callInChunks('ZADD', queueKey(queue, delay > 0 and 'delayed' or 'ready'), scored)
  if delay > 0 then wakeIdleAt(queue, due) else wakeIdle(queue, #values) end
end
`
