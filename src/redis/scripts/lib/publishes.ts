/** Publishing messages: for `publish`, and for the fused enqueue. Encoding and Lua. */
import type { Envelope } from "../../../BrokerDriver.ts"
import * as defaults from "../../../internal/defaults.ts"
import * as FieldText from "../../FieldText.ts"
import { millis } from "../../scriptArguments.ts"

/** Encodes what neighbouring messages may have in common. */
export const encodeMessageHead = ({
  delayMillis,
  priority,
  queue,
  task
}: Envelope): ReadonlyArray<string> => [
  queue,
  FieldText.encode(task),
  `${Math.round(priority)}`,
  millis(delayMillis)
]

/**
 * Lua: publishes messages of the same queue, task, priority and delay, given their texts, their members where those are
 * reserved already, and the idle processes to wake where those are taken already. Needs `queuesLua`, whose `sendDueTimes` has to
 * end the script.
 */
export const publishesLua = /* lua */ `
local function reserveMembers(count, task, priority, delay)
  local tag = redis.call('HGET', base .. ':task-tags', task)
  if not tag then
    tag = integerText(redis.call('INCR', base .. ':tags-order'))
    redis.call('HSET', base .. ':task-tags', task, tag)
    redis.call('HSET', base .. ':tagged-tasks', tag, task)
  end
  local order = redis.call('INCRBY', base .. ':messages-order', count) - count
  -- as memberOf writes it; %d takes a fraction of the time, and is enough for numbers that a client sent
  local members, tail = {}, string.format(':%d:%d:', now + delay, priority) .. tag
  for i = 1, count do members[i] = string.format('%015d', order + i) .. tail end
  return members
end

local function publish(queue, task, priority, delay, values, members, idle)
  local due, texts = now + delay, {}
  members = members or reserveMembers(#values, task, priority, delay)
  for i, value in ipairs(values) do
    texts[2 * i - 1] = numberOf(members[i])
    texts[2 * i] = value
  end
  callInChunks('HSET', queueKey(queue, 'texts'), texts)
  if delay == 0 and priority == ${defaults.priority} then
    callInChunks('RPUSH', queueKey(queue, 'fresh'), members)
    return wakeIdle(queue, #values, idle)
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
