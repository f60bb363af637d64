/** Publishes messages. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, Envelope } from "../../BrokerDriver.ts"
import * as MessageText from "../MessageText.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { notifyLua, preludeLua } from "./lib/prelude.ts"
import { encodeMessageHead, publishesLua } from "./lib/publishes.ts"
import { queuesLua } from "./lib/queues.ts"

const lua = (clustered: boolean): string => `${preludeLua}${notifyLua(clustered)}${queuesLua}${publishesLua}
while position < #ARGV do
  local queue, task, priority, delay = nextText(), nextText(), nextNumber(), nextNumber()
  local values = {}
  for i = 1, nextNumber() do values[i] = nextText() end
  publish(queue, task, priority, delay, values)
end
sendDueTimes()
`

const encode = (envelopes: ReadonlyArray<Envelope>): ReadonlyArray<string> =>
  encodeGroups(envelopes, encodeMessageHead, (args, envelope) => args.push(MessageText.encode(envelope)))

/** Makes the operation. */
export const publish = ({ clustered, run, sharded }: ScriptRunner): BrokerDriver<RedisError>["publish"] => {
  const script = Script.make(lua(clustered))
  return (envelopes) =>
    Effect.asVoid(
      sharded(
        envelopes,
        ({ id }) => id,
        (shard, some) => Effect.as(run(script, shard, encode(some)), some)
      )
    )
}
