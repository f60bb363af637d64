/** Lists the tasks whose messages were set aside, and how long the oldest of each has been due. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SetAsideTask } from "../../BrokerDriver.ts"
import * as FieldText from "../FieldText.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { lanesLua } from "./lib/lanes.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/** Returns the number of a queue, a task, and milliseconds, for each lane. */
const lua = `${preludeLua}${queuesLua}${lanesLua}
local answers = {}
for queueNumber = 1, #ARGV do
  local queue = nextText()
  for _, task in ipairs(lanesOf(queue)) do
    answers[#answers + 1] = queueNumber
    answers[#answers + 1] = task
    answers[#answers + 1] = now - oldestByRank(laneKey(queue, task), now)
  end
end
return answers
`

type Answer = ReadonlyArray<number | string>

const decode = (queues: ReadonlyArray<string>, answer: Answer): ReadonlyArray<SetAsideTask> => {
  const found: Array<SetAsideTask> = []
  for (let i = 0; i < answer.length; i += 3) {
    const queue = queues[Number(answer[i]) - 1]
    const task = FieldText.decode(String(answer[i + 1]))
    if (queue !== undefined && task !== undefined)
      found.push({ queue, task, waitedMillis: Number(answer[i + 2]) })
  }
  return found
}

/** Makes the operation. */
export const listSetAside = ({
  everyShard,
  run
}: ScriptRunner): ((
  queues: ReadonlyArray<string>
) => Effect.Effect<ReadonlyArray<SetAsideTask>, RedisError>) => {
  const script = Script.make<Answer>(lua)
  return (queues) =>
    Effect.map(
      everyShard((shard) => run(script, shard, queues)),
      (answers) => {
        const found = Map.groupBy(
          answers.flatMap((answer) => decode(queues, answer)),
          ({ queue, task }) => JSON.stringify([queue, task])
        )
        return Array.from(found.values(), (ofShards) =>
          ofShards.reduce((one, other) => (other.waitedMillis > one.waitedMillis ? other : one))
        )
      }
    )
}
