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

/** Returns a queue, a task, and milliseconds, for each lane. */
const lua = `${preludeLua}${queuesLua}${lanesLua}
local answers = {}
for _, lane in ipairs(allLanes()) do
  local queue, task = lane[1], lane[2]
  answers[#answers + 1] = queue
  answers[#answers + 1] = task
  answers[#answers + 1] = now - oldestByRank(laneKey(queue, task), now)
end
return answers
`

type Answer = ReadonlyArray<number | string>

const decode = (answer: Answer): ReadonlyArray<SetAsideTask> => {
  const found: Array<SetAsideTask> = []
  for (let i = 0; i < answer.length; i += 3) {
    const task = FieldText.decode(String(answer[i + 1]))
    if (task !== undefined) {
      found.push({ queue: String(answer[i]), task, waitedMillis: Number(answer[i + 2]) })
    }
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
      everyShard((shard) => run(script, shard, [])),
      (answers) => {
        const found = Map.groupBy(
          answers.flatMap(decode).filter(({ queue }) => queues.includes(queue)),
          ({ queue, task }) => JSON.stringify([queue, task])
        )
        return Array.from(found.values(), (ofShards) =>
          ofShards.reduce((one, other) => (other.waitedMillis > one.waitedMillis ? other : one))
        )
      }
    )
}
