/** Publishes the message of a reservation, and marks the reservation as published. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Envelope } from "../../BrokerDriver.ts"
import * as IncarnationText from "../IncarnationText.ts"
import * as MessageText from "../MessageText.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { encodeMessageHead, publishesLua } from "./lib/publishes.ts"
import { queuesLua } from "./lib/queues.ts"
import { recordScript } from "./lib/recordScript.ts"

/**
 * Publishes nothing where the task has ended meanwhile, another request has published its message, or a replay has opened a
 * later generation.
 */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    queuesLua,
    publishesLua,
    `
local queue, task, priority, delay = nextText(), nextText(), nextNumber(), nextNumber()
local record, incarnation, generation, value = findRecord(nextText()), nextText(), nextText(), nextText()
if not record or record[INCARNATION] ~= incarnation then return 0 end
if record[GENERATION] ~= generation then return 1 end
if TERMINAL[record[STATE]] or record[RESERVED_UNTIL] == '-' then return 1 end
local members = reserveMembers(1, task, priority, delay)
removeDeadline(record)
record[RESERVED_UNTIL] = '-'
if delay > 0 then record[DELAYED_MESSAGE] = delayedMessageOf(queue, members[1]) end
saveRecord(record)
setDeadline(record)
publish(queue, task, priority, delay, { value }, members)
sendDueTimes()
return 1
`
  )

/** Makes the operation, which returns whether the record still exists. */
export const publishReserved = ({ clustered, keyspace, run }: ScriptRunner) => {
  const script = Script.make<number>(lua(clustered))
  return (message: Envelope): Effect.Effect<boolean, RedisError> =>
    Effect.map(
      run(script, keyspace.shardOf(message.id), [
        ...encodeMessageHead(message),
        message.id,
        IncarnationText.encode(message.incarnation ?? ""),
        `${message.generation ?? 0}`,
        MessageText.encode(message)
      ]),
      (exists) => exists === 1
    )
}
