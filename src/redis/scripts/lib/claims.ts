/** Claiming messages: for `claim`, and for the fused claim. Encoding, Lua and decoding. */
import type { ClaimedMessage } from "../../../BackendDriver.ts"
import type { ClaimRequest, Delivery } from "../../../BrokerDriver.ts"
import * as ClaimHandle from "../../ClaimHandle.ts"
import * as FieldText from "../../FieldText.ts"
import * as MessageText from "../../MessageText.ts"
import { millis } from "../../scriptArguments.ts"
import { IDLE_MILLIS } from "./queues.ts"
import { decodeStarted } from "./starts.ts"

/** How many messages a claim makes ready at most, beyond those that it takes. */
const MAX_MADE_READY = 1_000
/** How many messages a claim takes at most: that many values fit into one call. */
const MAX_CLAIMED = 4_000

/** A claim of one shard, with distinct queues. */
export interface ShardClaim extends ClaimRequest {
  readonly claimId: string
  readonly process: string
  /** Whether the process is subscribed, and is woken if it finds less than it asked for. */
  readonly isSubscribed: boolean
}

/** Encodes what `readClaim` reads. The queues follow. */
export const encodeClaim = (claim: ShardClaim): Array<string> => [
  `${claim.max}`,
  millis(claim.leaseMillis),
  FieldText.encode(claim.worker),
  claim.process,
  claim.isSubscribed ? "1" : "",
  claim.claimId,
  claim.isRetry === true ? "1" : ""
]

/**
 * The answer to a claim: the server's time, how long until something more becomes due (-1: nothing will by itself), and
 * for each message the number of its queue (counted from 1), its member and its text. Of a fused claim also the answer to
 * its start, empty where it is not started yet.
 */
export type ClaimAnswer = readonly [now: number, nextDue: number, ...messages: Array<number | string>]

/** The time from which the age of a message is counted, from its member: when it became due, or an earlier time. */
const waitsSince = (member: string): number => {
  const [, times = ""] = member.split(":", 2)
  return Number(times.slice(times.indexOf("-") + 1))
}

/** Decodes the messages of an answer. */
export const decodeClaimed = (
  shard: number,
  queues: ReadonlyArray<string>,
  answer: ClaimAnswer,
  isFused: boolean
): Array<ClaimedMessage> => {
  const [now] = answer
  const claimed: Array<ClaimedMessage> = []
  const width = isFused ? 4 : 3
  for (let i = 2; i < answer.length; i += width) {
    const queue = queues[Number(answer[i]) - 1]!
    const member = String(answer[i + 1])
    const delivery: Delivery = {
      handle: ClaimHandle.encode(shard, member, queue),
      queue,
      ageMillis: Math.max(0, now - waitsSince(member)),
      ...MessageText.decode(String(answer[i + 2]))
    }
    const started = isFused ? String(answer[i + 3]) : ""
    claimed.push({
      delivery,
      run: started === "" ? undefined : { token: member, started: decodeStarted(started) }
    })
  }
  return claimed
}

/**
 * Lua: `claimMessages` claims, and calls `onClaimed` with the number of a queue (counted from 1), its claimed members,
 * each behind the end of its lease, and their texts. Needs `queuesLua`.
 */
export const claimsLua = /* lua */ `
-- A member that this store did not write becomes the text of a message, which fails to decode.
local function adoptForeignMember(queue, member)
  local id = string.format('%015.0f', redis.call('INCR', base .. ':messages-order'))
  redis.call('HSET', queueKey(queue, 'texts'), id, member)
  return memberOf(id, now, 0)
end

-- the member without the id of a claim whose lease is over
local function withoutClaimId(queue, member)
  return string.match(member, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d:%d+%-?%d*:%d+') or adoptForeignMember(queue, member)
end

local function makeReady(queue, set, max)
  local key = queueKey(queue, set)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ${MAX_MADE_READY} + max)
  if #due == 0 then return end
  local added, removed = {}, {}
  for _, member in ipairs(due) do
    added[#added + 1] = rankOf(member)
    added[#added + 1] = member
    removed[#removed + 1] = member
  end
  callInChunks('ZADD', queueKey(queue, 'ready'), added)
  callInChunks('ZREM', key, removed)
end

-- Takes the first of the ready of all queues, in their order. Returns runs of messages of one queue: its number, and the
-- members.
local function takeInOrder(queues, max)
  local heads = {}
  for queueNumber, queue in ipairs(queues) do
    for _, place in ipairs({ 'fresh', 'ready' }) do
      local command = place == 'fresh' and 'LRANGE' or 'ZRANGE'
      local members = redis.call(command, queueKey(queue, place), 0, max - 1)
      if #members > 0 then
        heads[#heads + 1] = { queueNumber = queueNumber, place = place, members = members, next = 1,
          rank = rankOf(members[1]) }
      end
    end
  end
  local runs = {}
  for i = 1, max do
    local best
    for _, head in ipairs(heads) do
      local member = head.members[head.next]
      if member and (not best or head.rank < best.rank
        or head.rank == best.rank and member < best.members[best.next]) then best = head end
    end
    if not best then break end
    local run = runs[#runs]
    if not run or run[1] ~= best.queueNumber then
      run = { best.queueNumber, {} }
      runs[#runs + 1] = run
    end
    table.insert(run[2], best.members[best.next])
    best.next = best.next + 1
    if best.members[best.next] then best.rank = rankOf(best.members[best.next]) end
  end
  for _, head in ipairs(heads) do
    local key = queueKey(queues[head.queueNumber], head.place)
    if head.next > 1 and head.place == 'fresh' then redis.call('LTRIM', key, head.next - 1, -1) end
    if head.next > 1 and head.place == 'ready' then redis.call('ZREM', key, unpack(head.members, 1, head.next - 1)) end
  end
  return runs
end

local function takeDue(queues, max)
  for _, queue in ipairs(queues) do
    makeReady(queue, 'delayed', max)
    makeReady(queue, 'claimed', max)
  end
  -- the common case: one queue, with nothing to compare
  if #queues == 1 and redis.call('EXISTS', queueKey(queues[1], 'ready')) == 0 then
    local members = redis.call('LPOP', queueKey(queues[1], 'fresh'), max)
    return members and { { 1, members } } or {}
  end
  return takeInOrder(queues, max)
end

local function textsOf(queue, claimed)
  local ids = {}
  for i = 2, #claimed, 2 do ids[i / 2] = numberOf(claimed[i]) end
  return redis.call('HMGET', queueKey(queue, 'texts'), unpack(ids))
end

local function addClaims(queue, members, leaseEnd, claimId)
  local claimed = {}
  for i, member in ipairs(members) do
    claimed[2 * i - 1] = leaseEnd
    claimed[2 * i] = withoutClaimId(queue, member) .. ':' .. claimId
  end
  callInChunks('ZADD', queueKey(queue, 'claimed'), claimed)
  return claimed
end

-- how long until something more becomes due
local function nextDue(queues)
  local next = -1
  for _, queue in ipairs(queues) do
    for _, set in ipairs({ 'delayed', 'claimed' }) do
      local first = redis.call('ZRANGE', queueKey(queue, set), 0, 0, 'WITHSCORES')
      if first[2] then
        local wait = math.max(tonumber(first[2]) - now, 0)
        if next < 0 or wait < next then next = wait end
      end
    end
  end
  return next
end

local function setIdle(queues, process, isIdle)
  for _, queue in ipairs(queues) do
    local idle = queueKey(queue, 'idle')
    if isIdle then
      redis.call('ZADD', idle, now, process)
      redis.call('ZREMRANGEBYSCORE', idle, '-inf', now - ${IDLE_MILLIS})
    else
      redis.call('ZREM', idle, process)
    end
  end
end

local function readClaim()
  return { max = math.min(nextNumber(), ${MAX_CLAIMED}), lease = nextNumber(), worker = nextText(),
    process = nextText(), isSubscribed = nextText() == '1', claimId = nextText(), isRetry = nextText() == '1' }
end

-- Claims again what the claim of that id took and still holds, and nothing new. This looks through all claims, which is
-- done only where a connection broke.
local function repeatClaim(claim, queues, onClaimed)
  local suffix, leaseEnd, left = ':' .. claim.claimId, integerText(now + claim.lease), claim.max
  for queueNumber, queue in ipairs(queues) do
    local key, claimed = queueKey(queue, 'claimed'), {}
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if left > 0 and string.sub(member, -#suffix) == suffix then
        left = left - 1
        claimed[#claimed + 1] = leaseEnd
        claimed[#claimed + 1] = member
      end
    end
    if #claimed > 0 then
      callInChunks('ZADD', key, claimed)
      onClaimed(queueNumber, claimed, textsOf(queue, claimed))
    end
  end
end

local function claimMessages(claim, queues, answer, onClaimed)
  if claim.isRetry then return repeatClaim(claim, queues, onClaimed) end
  local taken, leaseEnd = 0, integerText(now + claim.lease)
  for _, run in ipairs(takeDue(queues, claim.max)) do
    local queueNumber, members = run[1], run[2]
    local claimed = addClaims(queues[queueNumber], members, leaseEnd, claim.claimId)
    taken = taken + #members
    onClaimed(queueNumber, claimed, textsOf(queues[queueNumber], claimed))
  end
  if claim.isSubscribed then setIdle(queues, claim.process, taken < claim.max) end
  if taken < claim.max then answer[2] = nextDue(queues) end
end
`
