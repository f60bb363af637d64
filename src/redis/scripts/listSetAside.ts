/** Lists lanes: their names, which is cheap, or with them how long the oldest of their messages has been due. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SetAsideTask } from "../../BrokerDriver.ts"
import type { LaneOperations } from "../../internal/driver/claimByTask.ts"
import * as FieldText from "../FieldText.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { lanesLua } from "./lib/lanes.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/** Returns a queue, a task, and milliseconds, for each lane. */
const lua = (milliseconds: string): string => `${preludeLua}${queuesLua}${lanesLua}
local answers = {}
for _, lane in ipairs(allLanes()) do
  local queue, task = lane[1], lane[2]
  answers[#answers + 1] = queue
  answers[#answers + 1] = task
  answers[#answers + 1] = ${milliseconds}
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

const makeList = ({ everyShard, run }: ScriptRunner, script: Script.Script<Answer>) => {
  return (queues: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<SetAsideTask>, RedisError> =>
    Effect.map(
      everyShard((shard) => run(script, shard, [])),
      (answers) => {
        const wanted = new Set(queues)
        const found = Map.groupBy(
          answers.flatMap(decode).filter(({ queue }) => wanted.has(queue)),
          ({ queue, task }) => JSON.stringify([queue, task])
        )
        return Array.from(found.values(), (ofShards) =>
          ofShards.reduce((one, other) => (other.waitedMillis > one.waitedMillis ? other : one))
        )
      }
    )
}

/** Makes the operation that lists the tasks of queues whose messages were set aside. */
export const listSetAside = (runner: ScriptRunner) =>
  makeList(runner, Script.make<Answer>(lua("now - oldestOfLane(queue, task)")))

/** Makes the operation that finds lanes by their queues and tasks. */
export const findLanes = (runner: ScriptRunner): LaneOperations<RedisError>["find"] => {
  const list = makeList(runner, Script.make<Answer>(lua("0")))
  return (queues, tasks) => Effect.map(list(queues), (found) => found.filter(({ task }) => tasks.has(task)))
}
