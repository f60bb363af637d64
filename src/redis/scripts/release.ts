/** Releases claims: puts their messages back. */
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver, Release } from "../../BrokerDriver.ts"
import type { ClaimHandle } from "../ClaimHandle.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { removeClaimLua, runForItems } from "./lib/handles.ts"
import { notifyLua, preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"
import { releasesLua } from "./lib/releases.ts"

const lua = (
  clustered: boolean
): string => `${preludeLua}${whenFullLua}${notifyLua(clustered)}${queuesLua}${removeClaimLua}${releasesLua}
while position < #ARGV do
  local queue, member, after, preserveDueTime = nextText(), nextText(), nextNumber(), nextText() == '1'
  local hasBody, body = nextText() == '1', nextText()
  release(queue, member, after, preserveDueTime, hasBody and body or nil)
end
sendDueTimes()
`

const encode = (
  { afterMillis, body, preserveDueTime }: Release,
  { member, queue }: ClaimHandle
): ReadonlyArray<string> => [
  queue,
  member,
  millis(afterMillis),
  preserveDueTime === true ? "1" : "0",
  body === undefined ? "0" : "1",
  body ?? ""
]

/** Makes the operation. */
export const release = (runner: ScriptRunner): BrokerDriver<RedisError>["release"] => {
  const script = Script.make(lua(runner.clustered))
  return (releases) => runForItems(runner, script, releases, encode)
}
