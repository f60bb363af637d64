/**
 * Claims messages, and starts those that may be started at once: at-least-once runs of the tasks whose start defaults are
 * given, and that have a record. The token of such a run is the member of its claim.
 */
import type { RedisError } from "effect/persistence/Redis"
import type { Fusion } from "../../BackendDriver.ts"
import type { FusedPart, MessageClaims } from "../MessageClaims.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { type ClaimAnswer, claimsLua } from "./lib/claims.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { removeClaimLua } from "./lib/handles.ts"
import { encodeWait, QUEUE_MARK, type Wait, waitsLua } from "./lib/handOver.ts"
import { lapseLua } from "./lib/lapse.ts"
import { queuesLua } from "./lib/queues.ts"
import { recordScript } from "./lib/recordScript.ts"
import { encodeStartDefaults, startsLua } from "./lib/starts.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    startsLua,
    queuesLua,
    claimsLua,
    removeClaimLua,
    waitsLua,
    `
local claim, queues, defaults = readClaim(), {}, {}
for i = 1, nextNumber() do queues[i] = nextText() end
local wait, defaultsFrom = readWait(), position + 1
while position < #ARGV do
  local one = nextStartDefaults()
  defaults[one.task] = one
end

-- Returns the group of a message by its head behind the id, which is nearly always that of the message before; nil where
-- its task may not be started here.
local last = {}
local function groupOf(value, after)
  local ends = string.find(value, '\\n', after, true)
  if not ends then return nil end
  if last.head and ends - after + 1 == #last.head and string.find(value, last.head, after, true) == after then
    return last.group
  end
  local head = string.sub(value, after, ends)
  local task, generation, incarnation = string.match(head, '^ (%S+) (%d+) (%S+)\\n$')
  local one = task and defaults[task]
  -- a number that is no safe integer is left to the worker
  if not one or #generation > 15 then return nil end
  group = { worker = claim.worker, process = claim.process, task = task, atMostOnce = '-', generation = generation,
    incarnation = incarnation, lease = one.lease, maxCrashes = one.maxCrashes, retention = one.retention,
    deadLetterRetention = one.deadLetterRetention }
  prepareFirstRuns()
  last.head, last.group = head, group
  return group
end

local answer = { now, -1, 0 }
local function onClaimed(queueNumber, claimed, texts)
  local ids, keys, places, groups = {}, {}, {}, {}
  for i = 1, #claimed / 2 do
    local value, last = texts[i] or '', #answer
    answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = queueNumber, claimed[2 * i], value, ''
    -- a task whose id had to be encoded is started by itself
    local after = string.find(value, '[ %%]')
    local found = after and after > 1 and string.byte(value, after) == 32 and groupOf(value, after)
    if found then
      local id, at = string.sub(value, 1, after - 1), #ids + 1
      ids[at], keys[at], places[at], groups[at] = id, base .. ':task:' .. id, last + 4, found
    end
  end
  local values, seen, written = getTexts(keys), {}, {}
  for i, id in ipairs(ids) do
    local place = places[i]
    local token = answer[place - 2]
    group = groups[i]
    group.queue = queues[queueNumber] or string.sub(queueNumber, ${QUEUE_MARK.length + 1})
    local started, subscribers
    if values[i] and not seen[id] then started, subscribers = startFirstRun(values[i], token) end
    if started then
      countText(started, values[i])
      written[#written + 1] = keys[i]
      written[#written + 1] = started
      if subscribers ~= '-' then hintSubscribers(id, subscribers, false) end
      answer[place] = 'R'
    else
      -- its record may be among those that are still to be written
      if #written > 0 then redis.call('MSET', unpack(written)) end
      written = {}
      local answered = startAnyRun(id, not seen[id] and values[i] or getText(keys[i]), token)
      if answered ~= 'L' and answered ~= 'N' then answer[place] = answered end
    end
    seen[id] = true
  end
  if #written > 0 then redis.call('MSET', unpack(written)) end
end

answer[3] = returnHandedOver(claim, wait, onClaimed)
local isClaimed, isIdle, taken = #answer > 3, false, 0
if claim.max > 0 and #queues > 0 then
  local isAccepted
  isAccepted, isIdle, taken = claimMessages(claim, queues, answer, onClaimed)
  isClaimed = isClaimed or isAccepted
else
  isClaimed = true
  if claim.isSubscribed then setIdle(queues, claim.process, false) end
end
if isIdle and wait.id ~= '' then waitForMore(claim, wait, queues, claim.max - taken, defaultsFrom) end
saveOverrun()
sendHints()
return isClaimed and answer
`
  )

const encodeRest =
  ({ startDefaults }: FusedPart) =>
  (queues: ReadonlyArray<string>, wait: Wait): ReadonlyArray<string> => [
    `${queues.length}`,
    ...queues,
    ...encodeWait(wait),
    ...startDefaults.flatMap(encodeStartDefaults)
  ]

/** Makes the operations. */
export const fusedClaim = (
  { clustered }: ScriptRunner,
  claims: MessageClaims
): { readonly [K in "claim" | "closeClaim"]: NonNullable<Fusion<RedisError>[K]> } => {
  const script = Script.make<ClaimAnswer>(lua(clustered))
  return {
    claim: ({ onHandedOver, startDefaults, ...request }) => {
      const fused = { onHandedOver, startDefaults }
      return claims.claim(script, request, encodeRest(fused), fused)
    },
    closeClaim: (worker) => claims.close(script, worker, encodeRest)
  }
}
