/** Renews the leases of claims. */
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver } from "../../BrokerDriver.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { readMembersLua, removeClaimLua, runForHandles } from "./lib/handles.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

const lua = `${preludeLua}${whenFullLua}${queuesLua}${readMembersLua}${removeClaimLua}
local lease = nextNumber()
local answers = {}
while position < #ARGV do
  local queue, members = readMembers()
  local claimed = queueKey(queue, 'claimed')
  for _, member in ipairs(members) do
    if removeClaim(claimed, queue, member) then
      redis.call('ZADD', claimed, now + lease, member)
      answers[#answers + 1] = '1'
    else
      answers[#answers + 1] = '0'
    end
  end
end
return table.concat(answers)
`

/** Makes the operation. */
export const renewClaims = (runner: ScriptRunner): BrokerDriver<RedisError>["renew"] => {
  const script = Script.make<string>(lua)
  return (handles, leaseMillis) => runForHandles(runner, script, handles, [millis(leaseMillis)])
}
