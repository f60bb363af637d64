/** Removes dead letters. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import { taskIdOf } from "../../internal/driver/deadLetterId.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Returns one digit for each: whether there was such a dead letter. */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    `
local answers = {}
while position < #ARGV do
  local id = nextText()
  local existed = hasDeadLetter(id)
  removeDeadLetter(id)
  answers[#answers + 1] = existed and '1' or '0'
end
return table.concat(answers)
`
  )

/** Makes the operation. */
export const removeDeadLetters = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["removeDeadLetters"] => {
  const script = Script.make<string>(lua(clustered))
  return (ids) =>
    sharded(ids, taskIdOf, (shard, some) =>
      Effect.map(run(script, shard, some), (digits) => Array.from(digits, (digit) => digit === "1"))
    )
}
