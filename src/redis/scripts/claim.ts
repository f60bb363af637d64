/** Claims messages. */
import type { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage } from "../../BackendDriver.ts"
import type { ClaimRequest } from "../../BrokerDriver.ts"
import type { MessageClaims } from "../MessageClaims.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { type ClaimAnswer, claimsLua } from "./lib/claims.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { notifyLua, preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

const lua = (
  clustered: boolean
): string => `${preludeLua}${whenFullLua}${notifyLua(clustered)}${queuesLua}${claimsLua}
local claim, queues = readClaim(), {}
while position < #ARGV do queues[#queues + 1] = nextText() end
local answer = { now, -1 }
return claimMessages(claim, queues, answer, addingTo(answer)) and answer
`

/** Makes the operation. */
export const claim = (
  { clustered }: ScriptRunner,
  claims: MessageClaims
): ((request: ClaimRequest) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>) => {
  const script = Script.make<ClaimAnswer>(lua(clustered))
  return (request) => claims.claim(script, request, (queues) => queues)
}
