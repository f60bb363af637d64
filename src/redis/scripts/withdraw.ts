/** Ends the tasks of messages that were removed from their queues: at once, or when their runs do not end them. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { PurgedMessage } from "../../BrokerDriver.ts"
import * as IncarnationText from "../IncarnationText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    `
local function withdraw(id, incarnation, generation)
  local record = findRecord(id)
  -- W1
  if not record or TERMINAL[record[STATE]] then return end
  if record[INCARNATION] ~= incarnation or record[GENERATION] ~= generation then return end
  if record[STATE] == 'STARTED' then
    -- W2
    if record[STOP] ~= '-' then return end
    record[STOP] = '2'
    saveRecord(record)
    setDeadline(record)
  elseif not endIfLapsed(record) then
    -- W3
    endTask(record, 'FAILURE', nil, 'Cancelled')
  end
end

while position < #ARGV do withdraw(nextText(), nextText(), nextText()) end
saveOverrun()
sendHints()
`
  )

const encode = (messages: ReadonlyArray<PurgedMessage>): ReadonlyArray<string> =>
  messages.flatMap(({ generation, id, incarnation }) => [
    id,
    IncarnationText.encode(incarnation),
    `${generation}`
  ])

/** Makes the operation. */
export const withdraw = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["withdraw"] => {
  const script = Script.make(lua(clustered))
  return (messages) =>
    Effect.asVoid(
      sharded(
        messages,
        ({ id }) => id,
        (shard, some) => Effect.as(run(script, shard, encode(some)), some)
      )
    )
}
