/** Reads dead letters by their ids. */
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersById, deadLettersLua, decodeDeadLetter, readDeadLetterLua } from "./lib/deadLetters.ts"
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
export const getDeadLetters = (runner: ScriptRunner): BackendDriver<RedisStoreError>["getDeadLetters"] =>
  deadLettersById(runner, Script.make(lua(runner.clustered)), decodeDeadLetter)
