/** Parks messages that no run can be made of, as dead letters without a task. */
import { Effect } from "effect"
import type { BackendDriver, ParkedMessage } from "../../BackendDriver.ts"
import { taskIdOf } from "../../internal/driver/deadLetterId.ts"
import * as BodyText from "../BodyText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    `
while position < #ARGV do
  local id, retention = nextText(), nextNumber()
  local fields = { 'queue', nextText(), 'reason', nextText(), 'exit', nextText(), 'body', nextText(),
    'generation', 0, 'attempts', 0, 'fence', 0 }
  if not hasDeadLetter(id) then
    removeDeadLetter(id)
    addDeadLetter(id, retention, nil, fields)
  end
end
saveOverrun()
`
  )

const encode = (parked: ReadonlyArray<ParkedMessage>): ReadonlyArray<string> =>
  parked.flatMap(({ body, exit, deadLetterId, queue, reason, retentionMillis }) => [
    deadLetterId,
    millis(retentionMillis),
    queue,
    reason,
    exit,
    BodyText.encode(body)
  ])

/** Makes the operation. */
export const parkMessage = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["parkMessage"] => {
  const script = Script.make(lua(clustered))
  return (parked) =>
    Effect.asVoid(
      sharded(
        parked,
        ({ deadLetterId }) => taskIdOf(deadLetterId),
        (shard, some) => Effect.as(run(script, shard, encode(some)), some)
      )
    )
}
