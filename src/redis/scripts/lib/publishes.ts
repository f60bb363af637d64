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

/** Lua: publishes messages of the same queue, priority and delay, given their texts. Needs `queuesLua`. */
export const publishesLua = /* lua */ `
local function publish(queue, priority, delay, values)
  local order = redis.call('INCRBY', base .. ':messages-order', #values) - #values
  local due = now + delay
  local members, texts = {}, {}
  local tail = memberOf('', due, priority)
  for i, value in ipairs(values) do
    local id = string.format('%015.0f', order + i)
    members[i] = id .. tail
    texts[2 * i - 1] = id
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
