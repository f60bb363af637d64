/** Counts dead letters. */
import { Effect, Number as Num } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import * as FieldText from "../FieldText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua, removeExpiredDeadLettersLua } from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    removeExpiredDeadLettersLua,
    `
removeExpiredDeadLetters()
local task = nextText()
return redis.call('ZCARD', task == '' and base .. ':letters' or base .. ':letters:' .. task)
`
  )

/** Makes the operation. */
export const countDeadLetters = ({
  clustered,
  everyShard,
  run
}: ScriptRunner): BackendDriver<RedisStoreError>["countDeadLetters"] => {
  const script = Script.make<number>(lua(clustered))
  return (task) => {
    const args = [task === undefined ? "" : FieldText.encode(task)]
    return Effect.map(
      everyShard((shard) => run(script, shard, args)),
      Num.sumAll
    )
  }
}
