/** Reads dead letters by their ids. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import { decodeReply } from "../fieldDecoding.ts"
import { taskIdOfDeadLetter } from "../Keyspace.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import {
  deadLettersLua,
  type DeadLetterValues,
  decodeDeadLetters,
  readDeadLetterLua
} from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    readDeadLetterLua,
    `
local answers = {}
while position < #ARGV do answers[#answers + 1] = readDeadLetter(nextText()) end
return answers
`
  )

/** Makes the operation. */
export const getDeadLetters = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["getDeadLetters"] => {
  const script = Script.make<ReadonlyArray<DeadLetterValues | null>>(lua(clustered))
  return (ids) =>
    sharded(ids, taskIdOfDeadLetter, (shard, some) =>
      Effect.flatMap(run(script, shard, some), (found) => decodeReply(() => decodeDeadLetters(found)))
    )
}
