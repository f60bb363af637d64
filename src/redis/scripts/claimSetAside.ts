/** Claims messages that were set aside, from lanes. */
import { Array as Arr, type Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimedMessage } from "../../BackendDriver.ts"
import type { ClaimRequest } from "../../BrokerDriver.ts"
import type { Lane } from "../../internal/driver/lanes.ts"
import * as FieldText from "../FieldText.ts"
import type { MessageClaims } from "../MessageClaims.ts"
import * as MessageText from "../MessageText.ts"
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
local claim, minWaited, queues = readClaim(), nextNumber(), {}
for i = 1, nextNumber() do queues[i] = nextText() end
if isOverrun() then return false end

local lanes, places, dueAt = {}, {}, minWaited > 0 and now - minWaited or nil
while position < #ARGV do
  local number, task = nextNumber(), nextText()
  local queue = queues[number]
  local freshKey, readyKey = laneKeys(queue, task)
  local lane = { number = number, queue = queue, ready = readyKey, task = task }
  lanes[#lanes + 1] = lane
  addPlace(places, lane, freshKey, true, dueFresh(freshKey, dueAt, claim.max))
  addPlace(places, lane, readyKey, false, dueReady(readyKey, dueAt, claim.max))
end

-- A text that is not of its lane's task was edited, or the tag of its member was: it goes back to its queue, where claims look at it.
local function returnOthers(lane, members, texts)
  local kept, count = 0, #texts
  for i = 1, count do
    local member, text = members[i], texts[i]
    if taskOf(string.match(text, '^${MessageText.OVERSIZED}%d+\\n(.*)$') or text) == lane.task then
      kept = kept + 1
      members[kept], texts[kept] = member, text
    else
      redis.call('ZADD', queueKey(lane.queue, 'ready'), rankOf(member), (string.gsub(member, '%d+$', '0')))
    end
  end
  for i = kept + 1, count do texts[i] = nil end
end

local answer, leaseEnd = { now, -1 }, integerText(now + claim.lease)
local _, isCut = claimRuns(claim, takeInOrder(places, claim.max), leaseEnd, addingTo(answer), returnOthers)
if isCut then answer[2] = 0 end
for _, lane in ipairs(lanes) do removeEmptyLane(lane.queue, lane.task) end
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
