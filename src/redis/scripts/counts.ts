/** Counts the messages of queues. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, QueueCounts } from "../../BrokerDriver.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/** Returns four numbers for each queue: ready, delayed, claimed and parked. A claim whose lease is over counts as ready. */
const lua = `${preludeLua}${queuesLua}
local answers = {}
while position < #ARGV do
  local queue = nextText()
  local function count(set, from, to) return redis.call('ZCOUNT', queueKey(queue, set), from, to) end
  local later = '(' .. integerText(now)
  answers[#answers + 1] = redis.call('LLEN', queueKey(queue, 'fresh')) + redis.call('ZCARD', queueKey(queue, 'ready'))
    + count('delayed', '-inf', now) + count('claimed', '-inf', now)
  answers[#answers + 1] = count('delayed', later, '+inf')
  answers[#answers + 1] = count('claimed', later, '+inf')
  answers[#answers + 1] = redis.call('XLEN', trimmedParked(queue))
end
return answers
`

/** Makes the operation. */
export const counts = ({ everyShard, run }: ScriptRunner): BrokerDriver<RedisError>["counts"] => {
  const script = Script.make<ReadonlyArray<number>>(lua)
  return (queues) =>
    Effect.map(
      everyShard((shard) => run(script, shard, queues)),
      (shards) => {
        const sum = (at: number): number => shards.reduce((total, numbers) => total + numbers[at]!, 0)
        return queues.map((_, i): QueueCounts => {
          const parked = sum(4 * i + 3)
          return {
            ready: sum(4 * i),
            delayed: sum(4 * i + 1),
            claimed: sum(4 * i + 2),
            ...(parked > 0 && { parked })
          }
        })
      }
    )
}
