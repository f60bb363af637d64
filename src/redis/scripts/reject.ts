/** Rejects messages: moves them into a stream of their queue that operators can read. */
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver } from "../../BrokerDriver.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { removeClaimLua, runForItems } from "./lib/handles.ts"
import { preludeLua } from "./lib/prelude.ts"
import { PARKED_MILLIS, queuesLua } from "./lib/queues.ts"

const lua = `${preludeLua}${whenFullLua}${queuesLua}${removeClaimLua}
while position < #ARGV do
  local queue, member, reason = nextText(), nextText(), nextText()
  if removeClaim(queueKey(queue, 'claimed'), queue, member) then
    local id = numberOf(member)
    local parked = trimmedParked(queue)
    redis.call('XADD', parked, '*',
      'reason', reason, 'message', redis.call('HGET', queueKey(queue, 'texts'), id) or '')
    redis.call('PEXPIRE', parked, ${PARKED_MILLIS})
    redis.call('HDEL', queueKey(queue, 'texts'), id)
  end
end
`

/** Makes the operation. */
export const reject = (runner: ScriptRunner): BrokerDriver<RedisError>["reject"] => {
  const script = Script.make(lua)
  return (rejections) =>
    runForItems(runner, script, rejections, ({ reason }, { member, queue }) => [queue, member, reason])
}
