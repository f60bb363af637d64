/** Cancels tasks: ends waiting ones, removes their messages that are not due yet, and requests running ones to stop. */
import { identity } from "effect"
import type { BackendDriver, CancelAnswer } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"
import { CHANGED } from "./lib/subscribers.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    `
local answers = {}
while position < #ARGV do
  local id = nextText()
  local record = findRecord(id)
  local answer
  if not record then
    answer = 'Unknown'
  elseif TERMINAL[record[STATE]] then
    -- C1
    answer = 'AlreadyDone'
  elseif record[STATE] == 'STARTED' then
    -- C2
    record[STOP] = '1'
    saveRecord(record)
    setDeadline(record)
    if record[PROCESS] ~= '-' then addHint(record[PROCESS], id, '${CHANGED}') end
    hintChange(record)
    answer = 'Requested'
  elseif endIfLapsed(record) then
    -- C3
    answer = 'AlreadyDone'
  else
    -- C4
    endTask(record, 'FAILURE', nil, 'Cancelled')
    answer = 'Cancelled'
  end
  answers[#answers + 1] = answer
end
saveOverrun()
sendHints()
return answers
`
  )

/** Makes the operation. */
export const cancel = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["cancel"] => {
  const script = Script.make<ReadonlyArray<CancelAnswer>>(lua(clustered))
  return (ids) => sharded(ids, identity, (shard, some) => run(script, shard, some))
}
