/** Claiming messages: for `claim`, and for the fused claim. Encoding, Lua and decoding. */
import type { ClaimedMessage } from "../../../BackendDriver.ts"
import type { ClaimRequest, Delivery } from "../../../BrokerDriver.ts"
import * as defaults from "../../../internal/defaults.ts"
import { maxMessageBytes } from "../../../internal/driver/maxMessageBytes.ts"
import * as ClaimHandle from "../../ClaimHandle.ts"
import * as FieldText from "../../FieldText.ts"
import * as MessageText from "../../MessageText.ts"
import { millis } from "../../scriptArguments.ts"
import { QUEUE_MARK } from "./handOver.ts"
import { IDLE_MILLIS, withoutClaimIdLua } from "./queues.ts"
import { TEXTS_AT_ONCE } from "./replySize.ts"
import { decodeStarted } from "./starts.ts"

/** How many messages a claim makes ready at most, beyond those that it takes. */
const MAX_MADE_READY = 1_000
/** How many messages a claim takes at most: that many values fit into one call. */
const MAX_CLAIMED = 4_000
/** Bytes of the head of a text, at most. */
const HEAD_BYTES = 16 * 1024

/** A claim of one shard, with distinct queues. */
export interface ShardClaim extends ClaimRequest {
  readonly claimId: string
  readonly process: string
  /** Whether the process is subscribed, and is woken if it finds less than it asked for. */
  readonly isSubscribed: boolean
}

/** Encodes what `readClaim` reads. The queues follow. */
export const encodeClaim = (claim: Omit<ShardClaim, "queues" | "tasks">): Array<string> => [
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
 * its start, empty where it is not started yet; and before the messages how many were handed over that it does not return
 * (see `handOver.ts`). `null`: refused, since the server's memory is full (see `lib/fullMemory.ts`).
 */
export type ClaimAnswer = readonly [now: number, nextDue: number, ...messages: Array<number | string>] | null

/** Returns how many messages that were handed over the answer to a fused claim does not return. */
export const leftOf = (answer: NonNullable<ClaimAnswer>): number => Number(answer[2])

/** The time from which the age of a message is counted, from its member: when it became due, or an earlier time. */
const waitsSince = (member: string): number => {
  const [, times = ""] = member.split(":", 2)
  return Number(times.slice(times.indexOf("-") + 1))
}

/** Decodes the messages of an answer. */
export const decodeClaimed = (
  shard: number,
  queues: ReadonlyArray<string>,
  answer: NonNullable<ClaimAnswer>,
  isFused: boolean
): Array<ClaimedMessage> => {
  const [now] = answer
  const claimed: Array<ClaimedMessage> = []
  const width = isFused ? 4 : 3
  for (let i = isFused ? 3 : 2; i < answer.length; i += width) {
    const named = String(answer[i])
    const queue = named.startsWith(QUEUE_MARK) ? named.slice(QUEUE_MARK.length) : queues[Number(named) - 1]!
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
 * each behind the end of its lease, and their texts. Needs `queuesLua` and `whenFullLua`.
 *
 * Messages are taken from parts. A part is a queue or a lane: the number and the name of its queue (`number`, `queue`), and the key
 * of a sorted set (`ready`) for what is put back.
 */
export const claimsLua = /* lua */ `${withoutClaimIdLua}
-- A member that this store did not write becomes the text of a message, which fails to decode.
local function adoptForeignMember(queue, member)
  local id = string.format('%015.0f', redis.call('INCR', base .. ':messages-order'))
  redis.call('HSET', queueKey(queue, 'texts'), id, member)
  return memberOf(id, now, 0, '0')
end

-- replaces members that this store did not write, and returns all of them without the ids of claims
local function bareMembers(queue, members)
  local bare = {}
  for i, member in ipairs(members) do
    bare[i] = withoutClaimId(member)
    if not bare[i] then
      members[i] = adoptForeignMember(queue, member)
      bare[i] = members[i]
    end
  end
  return bare
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

-- adds a place of a part from which messages may be taken: the key of a list or of a sorted set, and its first members
local function addPlace(places, part, key, isList, members)
  if #members == 0 then return end
  places[#places + 1] = { part = part, key = key, isList = isList, members = members, next = 1, rank = rankOf(members[1]) }
end

-- Takes the first messages of places, in the order of claims. Returns runs of messages of one part: it, and the members.
local function takeInOrder(places, max)
  local runs = {}
  for _ = 1, max do
    local best
    for _, place in ipairs(places) do
      local member = place.members[place.next]
      if member and (not best or place.rank < best.rank
        or place.rank == best.rank and member < best.members[best.next]) then best = place end
    end
    if not best then break end
    local run = runs[#runs]
    if not run or run[1] ~= best.part then
      run = { best.part, {} }
      runs[#runs + 1] = run
    end
    table.insert(run[2], best.members[best.next])
    best.next = best.next + 1
    if best.members[best.next] then best.rank = rankOf(best.members[best.next]) end
  end
  for _, place in ipairs(places) do
    local taken = place.next - 1
    if taken > 0 and place.isList then redis.call('LTRIM', place.key, taken, -1) end
    if taken > 0 and not place.isList then redis.call('ZREM', place.key, unpack(place.members, 1, taken)) end
  end
  return runs
end

-- takes due messages of queues, as takeInOrder does
local function takeDue(queues, max)
  local parts, places = {}, {}
  for number, queue in ipairs(queues) do
    makeReady(queue, 'delayed', max)
    makeReady(queue, 'claimed', max)
    parts[number] = { number = number, queue = queue, ready = queueKey(queue, 'ready') }
  end
  -- the common case: one queue, with nothing to compare
  if #queues == 1 and redis.call('EXISTS', parts[1].ready) == 0 then
    local members = redis.call('LPOP', queueKey(queues[1], 'fresh'), max)
    return members and { { parts[1], members } } or {}
  end
  for _, part in ipairs(parts) do
    local fresh = queueKey(part.queue, 'fresh')
    addPlace(places, part, fresh, true, redis.call('LRANGE', fresh, 0, max - 1))
    addPlace(places, part, part.ready, false, redis.call('ZRANGE', part.ready, 0, max - 1))
  end
  return takeInOrder(places, max)
end

local function textsOf(queue, members, from, to)
  local ids = {}
  for i = from, to do ids[i - from + 1] = numberOf(members[i]) end
  return redis.call('HMGET', queueKey(queue, 'texts'), unpack(ids))
end

-- An oversized message is returned without its body: its size and its head.
local function withoutOversizedBody(text)
  if #text <= ${maxMessageBytes} then return text end
  local head = string.sub(text, 1, string.find(string.sub(text, 1, ${HEAD_BYTES}), '\\n', 1, true) or 0)
  if #text - #head <= ${maxMessageBytes} then return text end
  return '${MessageText.OVERSIZED}' .. (#text - #head) .. '\\n' .. head
end

-- Reads the texts of the first members that fit into the answer, of which the first always fits. Returns them, the size of
-- the answer then, and whether there are more members.
local function fittingTexts(queue, members, size)
  local texts = {}
  while #texts < #members do
    local from = #texts + 1
    for _, text in ipairs(textsOf(queue, members, from, math.min(#members, from + ${TEXTS_AT_ONCE} - 1))) do
      text = withoutOversizedBody(text or '')
      if size > 0 and size + #text > ${defaults.maxReplySize} then return texts, size, true end
      size = size + #text
      texts[#texts + 1] = text
    end
  end
  return texts, size, false
end

-- Puts members back that were taken, from the one at an index on. The receipt of a claim whose lease is over stays valid.
local function putBack(ready, members, from)
  local added = {}
  for i = from, #members do
    added[#added + 1] = rankOf(members[i])
    added[#added + 1] = members[i]
  end
  callInChunks('ZADD', ready, added)
end

-- claims the first members
local function addClaims(queue, members, count, leaseEnd, claimId)
  local claimed = {}
  for i = 1, count do
    claimed[2 * i - 1] = leaseEnd
    claimed[2 * i] = members[i] .. ':' .. claimId
  end
  callInChunks('ZADD', queueKey(queue, 'claimed'), claimed)
  return claimed
end

-- Claims runs of messages, as many as fit into an answer, and puts the others back. onFit may remove some of those that fit
-- from the bare members and the texts. Returns how many are claimed, and whether some did not fit.
local function claimRuns(claim, runs, leaseEnd, onClaimed, onFit)
  local taken, size, isCut = 0, 0, false
  for _, run in ipairs(runs) do
    local part, members, texts = run[1], run[2], {}
    local bare = bareMembers(part.queue, members)
    if not isCut then texts, size, isCut = fittingTexts(part.queue, members, size) end
    if #texts < #members then putBack(part.ready, members, #texts + 1) end
    if onFit then onFit(part, bare, texts) end
    if #texts > 0 then
      taken = taken + #texts
      onClaimed(part.number, addClaims(part.queue, bare, #texts, leaseEnd, claim.claimId), texts)
    end
  end
  return taken, isCut
end

-- returns a function that adds to an answer what is claimed
local function addingTo(answer)
  return function(queueNumber, claimed, texts)
    for i, text in ipairs(texts) do
      local last = #answer
      answer[last + 1], answer[last + 2], answer[last + 3] = queueNumber, claimed[2 * i], text
    end
  end
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

-- The end of the leases of a worker's last claim leads to its members, in case the claim is repeated.
local function rememberClaim(claim, leaseEnd)
  redis.call('SET', base .. ':last-claim:' .. claim.worker, leaseEnd .. ' ' .. claim.claimId, 'PX', claim.lease)
end

-- the members of the last claim of a worker, in a queue
local function membersOfClaim(claim, queue)
  local leaseEnd, claimId = string.match(redis.call('GET', base .. ':last-claim:' .. claim.worker) or '', '^(%d+) (.*)$')
  if claimId ~= claim.claimId then return {} end
  local members, suffix = {}, ':' .. claimId
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', queueKey(queue, 'claimed'), leaseEnd, leaseEnd)) do
    if string.sub(member, -#suffix) == suffix then members[#members + 1] = member end
  end
  return members
end

-- Claims again what the claim of that id took and still holds, and nothing new. It has no more than fits into an answer.
local function repeatClaim(claim, queues, onClaimed)
  local leaseEnd, left = integerText(now + claim.lease), claim.max
  for queueNumber, queue in ipairs(queues) do
    local members, claimed = membersOfClaim(claim, queue), {}
    local count = math.min(left, #members)
    for i = 1, count do claimed[2 * i - 1], claimed[2 * i] = leaseEnd, members[i] end
    if count > 0 then
      left = left - count
      callInChunks('ZADD', queueKey(queue, 'claimed'), claimed)
      onClaimed(queueNumber, claimed, (fittingTexts(queue, { unpack(members, 1, count) }, 0)))
    end
  end
  rememberClaim(claim, leaseEnd)
end

-- Claims nothing, and returns false, where claims are refused. Returns also whether it found less than it asked for.
local function claimMessages(claim, queues, answer, onClaimed)
  if claim.isRetry then
    repeatClaim(claim, queues, onClaimed)
    return true
  end
  if isOverrun() then return false end
  local leaseEnd = integerText(now + claim.lease)
  local taken, isCut = claimRuns(claim, takeDue(queues, claim.max), leaseEnd, onClaimed)
  if taken > 0 then rememberClaim(claim, leaseEnd) end
  if isCut then answer[2] = 0 end
  local isIdle = taken < claim.max and not isCut
  if claim.isSubscribed then setIdle(queues, claim.process, isIdle) end
  if isIdle then answer[2] = nextDue(queues) end
  return true, isIdle, taken
end
`
