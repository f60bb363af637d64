/** Claims messages that were set aside, from lanes. */
import { Array as Arr, type Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage } from "../../BackendDriver.ts"
import type { ClaimRequest } from "../../BrokerDriver.ts"
import type { Lane } from "../../internal/driver/lanes.ts"
import * as FieldText from "../FieldText.ts"
import type { MessageClaims } from "../MessageClaims.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { type ClaimAnswer, claimsLua } from "./lib/claims.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lanesLua } from "./lib/lanes.ts"
import { notifyLua, preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/**
 * Takes the first messages of all lanes, in the order of claims. The claim is not remembered as the worker's last one, so a repetition
 * does not find what it took: these messages are due again when their lease is over.
 */
const lua = (
  clustered: boolean
): string => `${preludeLua}${whenFullLua}${notifyLua(clustered)}${queuesLua}${claimsLua}${lanesLua}
local claim, dueAt, queues, found = readClaim(), now - nextNumber(), {}, {}
for i = 1, nextNumber() do queues[i] = nextText() end
if isOverrun() then return false end
while position < #ARGV do
  local queueNumber, task = nextNumber(), nextText()
  for _, member in ipairs(dueMembers(laneKey(queues[queueNumber], task), dueAt, claim.max)) do
    found[#found + 1] = { queueNumber = queueNumber, task = task, member = member, rank = rankOf(member) }
  end
end
table.sort(found, function(one, other)
  if one.rank ~= other.rank then return one.rank < other.rank end
  return one.member < other.member
end)

local answer, leaseEnd, size, next = { now, -1 }, integerText(now + claim.lease), 0, 1
local last = math.min(#found, claim.max)
while next <= last do
  -- neighbours of one lane
  local first, members = found[next], {}
  while next <= last and found[next].queueNumber == first.queueNumber and found[next].task == first.task do
    members[#members + 1] = found[next].member
    next = next + 1
  end
  local queue, texts, isCut = queues[first.queueNumber], nil, nil
  texts, size, isCut = fittingTexts(queue, members, size)
  if #texts > 0 then
    removeFromLane(queue, first.task, { unpack(members, 1, #texts) })
    local claimed = addClaims(queue, members, #texts, leaseEnd, claim.claimId)
    for i, text in ipairs(texts) do
      local at = #answer
      answer[at + 1], answer[at + 2], answer[at + 3] = first.queueNumber, claimed[2 * i], text
    end
  end
  if isCut then
    answer[2] = 0
    break
  end
end
return answer
`

/** A claim from lanes, of messages that have been due for as long. */
export interface LaneClaim extends Pick<ClaimRequest, "max" | "leaseMillis" | "worker" | "claimId"> {
  readonly lanes: Arr.NonEmptyReadonlyArray<Lane>
  readonly minWaitedMillis: number
}

/** Makes the operation. */
export const claimSetAside = (
  { clustered }: ScriptRunner,
  claims: MessageClaims
): ((claim: LaneClaim) => Effect.Effect<ReadonlyArray<ClaimedMessage>, RedisError>) => {
  const script = Script.make<ClaimAnswer>(lua(clustered))
  return ({ lanes, minWaitedMillis, ...claim }) => {
    const queues = Arr.dedupe(Arr.map(lanes, ({ queue }) => queue))
    const args = [
      millis(minWaitedMillis),
      `${queues.length}`,
      ...queues,
      ...lanes.flatMap(({ queue, task }) => [`${queues.indexOf(queue) + 1}`, FieldText.encode(task)])
    ]
    return claims.claim(script, { ...claim, queues }, () => args)
  }
}
