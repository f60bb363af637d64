/** Settles runs, and acks or releases the message of each. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Settled, Settlement } from "../../BackendDriver.ts"
import type { ClaimHandle } from "../ClaimHandle.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { acksLua } from "./lib/acks.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { queuesLua } from "./lib/queues.ts"
import { recordScript } from "./lib/recordScript.ts"
import { releasesLua } from "./lib/releases.ts"
import { decodeSettled, encodeSettlementHead, pushSettlement, settlementsLua } from "./lib/settlements.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    settlementsLua,
    queuesLua,
    acksLua,
    releasesLua,
    `
local answers, acked = {}, {}

-- the message of a retry that is not due at once, as its record names it
local function retriedMessage(queue, member, after)
  local id, _, priority, tag = parseMember(member)
  return after > 0 and id and delayedMessageOf(queue, memberOf(id, now + after, priority, tag)) or nil
end

local function settleOne(outcome, time, tail, queue)
  local member = nextText()
  local answer = settleNext(outcome, time, tail, member, outcome == 'R' and retriedMessage(queue, member, tonumber(time)))
  answers[#answers + 1] = answer
  if answer == 'L' then return end
  if answer == 'S' and (outcome == 'R' or outcome == 'P') then
    release(queue, member, tonumber(time) or 0)
  else
    acked[#acked + 1] = member
  end
end

while position < #ARGV do
  local outcome, time, queue = nextText(), nextText(), nextText()
  local tail = plainTail(outcome, time)
  for i = 1, nextNumber() do settleOne(outcome, time, tail, queue) end
  if #acked > 0 then ack(queue, acked, {}) end
  acked = {}
end
saveOverrun()
sendDueTimes()
sendHints()
return table.concat(answers)
`
  )

/** A settlement, and the claim of its message in the same shard. */
export interface FusedSettlement {
  readonly handle: ClaimHandle
  readonly settlement: Settlement
}

const encode = (items: ReadonlyArray<FusedSettlement>): ReadonlyArray<string> =>
  encodeGroups(
    items,
    ({ handle, settlement }) => [...encodeSettlementHead(settlement), handle.queue],
    (args, { handle, settlement }) => {
      args.push(handle.member)
      // the token of a run that was claimed and started in one step is the member of its claim
      pushSettlement(args, settlement, settlement.token === handle.member ? "" : undefined)
    }
  )

/** Makes the operation. */
export const fusedSettle = ({ clustered, run, sharded }: ScriptRunner) => {
  const script = Script.make<string>(lua(clustered))
  return (items: ReadonlyArray<FusedSettlement>): Effect.Effect<ReadonlyArray<Settled>, RedisError> =>
    sharded(
      items,
      ({ settlement }) => settlement.id,
      (shard, some) =>
        Effect.map(run(script, shard, encode(some)), (codes) => Array.from(codes, decodeSettled))
    )
}
