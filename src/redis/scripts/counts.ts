/** Counts the messages of queues, and finds the oldest. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, QueueCounts } from "../../BrokerDriver.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { lanesLua } from "./lib/lanes.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/**
 * Returns six numbers for each queue: ready, delayed, claimed, parked, set aside, and for how many milliseconds the oldest of the
 * ready ones has been due.
 * A claim whose lease is over counts as ready.
 *
 * The oldest is the first of a place: of the fresh ones, of each priority of the ready ones, and of those whose delay or
 * lease is over. The priorities of the ready ones are found one after another, by the ranks of their first members.
 */
const lua = `${preludeLua}${queuesLua}${lanesLua}
local function oldestDue(queue)
  local oldest = math.min(now, dueOf(redis.call('LINDEX', queueKey(queue, 'fresh'), 0)))
  for _, set in ipairs({ 'delayed', 'claimed' }) do
    oldest = math.min(oldest, dueOf(redis.call('ZRANGEBYSCORE', queueKey(queue, set), '-inf', now, 'LIMIT', 0, 1)[1]))
  end
  return oldestByRank(queueKey(queue, 'ready'), oldest)
end

local answers, lanes = {}, tasksByQueue()
while position < #ARGV do
  local queue = nextText()
  local function count(set, from, to) return redis.call('ZCOUNT', queueKey(queue, set), from, to) end
  local later = '(' .. integerText(now)
  answers[#answers + 1] = redis.call('LLEN', queueKey(queue, 'fresh')) + redis.call('ZCARD', queueKey(queue, 'ready'))
    + count('delayed', '-inf', now) + count('claimed', '-inf', now)
  answers[#answers + 1] = count('delayed', later, '+inf')
  answers[#answers + 1] = count('claimed', later, '+inf')
  answers[#answers + 1] = redis.call('XLEN', trimmedParked(queue))
  local setAside = 0
  for _, task in ipairs(lanes[queue] or {}) do setAside = setAside + countLane(queue, task) end
  answers[#answers + 1] = setAside
  answers[#answers + 1] = now - oldestDue(queue)
end
return answers
`

/** Numbers of a queue in an answer. */
const WIDTH = 6

/** Makes the operation. */
export const counts = ({ everyShard, run }: ScriptRunner): BrokerDriver<RedisError>["counts"] => {
  const script = Script.make<ReadonlyArray<number>>(lua)
  return (queues) =>
    Effect.map(
      everyShard((shard) => run(script, shard, queues)),
      (shards) => {
        const sum = (at: number): number => shards.reduce((total, numbers) => total + numbers[at]!, 0)
        return queues.map((_, i): QueueCounts => {
          const parked = sum(WIDTH * i + 3)
          const setAside = sum(WIDTH * i + 4)
          return {
            ready: sum(WIDTH * i),
            delayed: sum(WIDTH * i + 1),
            claimed: sum(WIDTH * i + 2),
            ...(setAside > 0 && { setAside }),
            ...(parked > 0 && { parked }),
            oldestMillis: Math.max(...shards.map((numbers) => numbers[WIDTH * i + 5]!))
          }
        })
      }
    )
}
