/** Acks messages, which removes them. */
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver } from "../../BrokerDriver.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { acksLua } from "./lib/acks.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { readMembersLua, runForHandles } from "./lib/handles.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

const lua = `${preludeLua}${whenFullLua}${queuesLua}${readMembersLua}${acksLua}
local groups = {}
while position < #ARGV do
  local queue, members = readMembers()
  local answers = {}
  ack(queue, members, answers)
  groups[#groups + 1] = table.concat(answers)
end
saveOverrun()
return table.concat(groups)
`

/** Makes the operation. */
export const ack = (runner: ScriptRunner): BrokerDriver<RedisError>["ack"] => {
  const script = Script.make<string>(lua)
  return (handles) => runForHandles(runner, script, handles)
}
