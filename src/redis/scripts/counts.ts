/** Counts the messages of queues. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, QueueCounts } from "../../BrokerDriver.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/** Returns three numbers for each queue: ready, delayed and claimed. A claim whose lease is over counts as ready. */
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
        return queues.map((_, i): QueueCounts => ({
          ready: sum(3 * i),
          delayed: sum(3 * i + 1),
          claimed: sum(3 * i + 2)
        }))
      }
    )
}
