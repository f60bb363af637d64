/**
 * Hand-over: a claim that finds less than it asked for waits, and an enqueue claims and starts its message for it, in its own
 * step, and sends it over the channel of the process. Lua.
 *
 * A claim waits under an id that no other execution of a claim has, in three keys of the shard:
 *
 * - `:waiting:<process>`, a hash: leads from queues to the last claim of the process that waits for messages of them;
 * - `:waiting-claim:<id>`: what an enqueue has to know of the claim. As long as it exists, messages are handed over to the claim;
 * - `:handed-over:<id>`, a list of the messages that were, each a member and its queue.
 *
 * What is handed over is claimed and started as by that claim: the id ends the member, which is the token of the run. The next
 * claim of the worker removes the second key, says how many messages of the list came over the channel, one after the
 * other, and returns the rest of them.
 */
import * as defaults from "../../../internal/defaults.ts"
import { IDLE_MILLIS } from "./queues.ts"
import { firstRunsLua } from "./starts.ts"

/** Bytes of a message that is handed over, at most: all that one claim waits for fits into an answer. */
const MAX_BYTES = defaults.maxReplySize / 256

/** What a claim says of those that wait: its own id, empty if it does not wait, and those that end, with how many each received. */
export interface Wait {
  readonly id: string
  readonly ended: ReadonlyArray<readonly [id: string, received: number]>
}

/** A claim that neither waits nor ends any. */
export const noWait: Wait = { id: "", ended: [] }

/** Encodes what `readWait` reads. */
export const encodeWait = ({ ended, id }: Wait): ReadonlyArray<string> => [
  id,
  `${ended.length}`,
  ...ended.flatMap(([id, received]) => [id, `${received}`])
]

/** How an answer to a claim names the queue of a message that was handed over: in place of a number, before the name. */
export const QUEUE_MARK = "="

/**
 * Lua: for claims. `returnHandedOver` comes before the claim, and `waitForMore` after it. Needs `claimsLua` and `removeClaimLua`.
 */
export const waitsLua = /* lua */ `
local function readWait()
  local wait = { id = nextText(), ended = {} }
  for i = 1, nextNumber() do wait.ended[i] = { id = nextText(), received = nextNumber() } end
  return wait
end

-- claims again what claims that end were handed over and did not receive, if it is still held; returns how many are left
local function returnHandedOver(claim, wait, onClaimed)
  local leaseEnd, left = integerText(now + claim.lease), 0
  for _, one in ipairs(wait.ended) do
    local key = base .. ':handed-over:' .. one.id
    redis.call('DEL', base .. ':waiting-claim:' .. one.id)
    local entries = redis.call('LRANGE', key, one.received, -1)
    -- until then the list stays, in case the claim is repeated
    if #entries == 0 and one.received > 0 then redis.call('DEL', key) end
    for _, entry in ipairs(entries) do
      local member, queue = string.match(entry, '^([^/]*)/(.*)$')
      if claim.max == 0 then
        left = left + 1
      elseif removeClaim(queueKey(queue, 'claimed'), queue, member) then
        redis.call('ZADD', queueKey(queue, 'claimed'), leaseEnd, member)
        claim.max = claim.max - 1
        onClaimed('${QUEUE_MARK}' .. queue, { leaseEnd, member }, (fittingTexts(queue, { member }, 0)))
      end
    end
  end
  return left
end

-- waits for messages; the defaults of starts are the arguments from one on
local function waitForMore(claim, wait, queues, slots, from)
  local lines = { claim.worker .. ' ' .. slots .. ' ' .. integerText(claim.lease) .. ' ' .. nowText, cjson.encode(queues) }
  for i = from, #ARGV, 5 do lines[#lines + 1] = table.concat(ARGV, ' ', i, i + 4) end
  redis.call('SET', base .. ':waiting-claim:' .. wait.id, table.concat(lines, '\\n') .. '\\n', 'PX', ${IDLE_MILLIS})
  local key, ids = base .. ':waiting:' .. claim.process, {}
  for i, queue in ipairs(queues) do ids[2 * i - 1], ids[2 * i] = queue, wait.id end
  callInChunks('HSET', key, ids)
  redis.call('PEXPIRE', key, ${IDLE_MILLIS})
end
`

/**
 * Lua: for the enqueue. `handOver` hands a message of the default priority over, whose record was created for now, to the process
 * that `takeIdle` returned. It returns whether it did; otherwise also what it reserved for the message, and the process again, unless
 * that is gone. Needs `queuesLua` and `publishesLua`.
 *
 * It is one function, so that an enqueue that hands nothing over makes none of those inside.
 */
export const handOverLua = /* lua */ `
local function handOver(queue, task, id, value, idle)
  local head = id .. ' ' .. task .. ' 0 -\\n'
  local process, claimedAt = idle[1], tonumber(idle[2])
  if #value > ${MAX_BYTES} or string.sub(value, 1, #head) ~= head or claimedAt < now - ${IDLE_MILLIS} then
    return false, nil, idle
  end
  local claimId = redis.pcall('HGET', base .. ':waiting:' .. process, queue)
  local text = type(claimId) == 'string' and getText(base .. ':waiting-claim:' .. claimId)
  local at = text and string.find(text, '\\n' .. task .. ' ', 1, true)
  if not at then return false, nil, idle end
  local worker, slots, lease, since, encoded = string.match(text, '^(%S+) (%d+) (%d+) (%d+)\\n([^\\n]*)\\n')
  local runLease, maxCrashes, retention, deadLetterRetention = string.match(text, '^\\n%S+ (%d+) (%d+) (%d*) (%d*)\\n', at)
  local isDecoded, queues = pcall(cjson.decode, encoded or '')
  if not worker or not runLease or not isDecoded then return false, nil, idle end
  local handedKey = base .. ':handed-over:' .. claimId
  local count = redis.call('LLEN', handedKey) + 1
  if count > tonumber(slots) then return false, nil, idle end

  -- a claim would take what is due before this message, from any of its queues
  for _, one in ipairs(queues) do
    if redis.call('EXISTS', queueKey(one, 'fresh'), queueKey(one, 'ready')) > 0
      or redis.call('ZCOUNT', queueKey(one, 'delayed'), '-inf', now) > 0
      or redis.call('ZCOUNT', queueKey(one, 'claimed'), '-inf', now) > 0 then return false, nil, idle end
  end

  ${firstRunsLua}
  group = { worker = worker, process = process, task = task, atMostOnce = '-', generation = '0', incarnation = '-',
    lease = integerText(now + runLease), retention = retention == '' and '-' or retention,
    deadLetterRetention = deadLetterRetention == '' and '-' or deadLetterRetention }
  prepareFirstRuns()
  local record = getText(taskKey(id))
  if not record then return false, nil, idle end
  local members = reserveMembers(1, task, ${defaults.priority}, 0)
  local token = members[1] .. ':' .. claimId
  local started, subscribers = startFirstRun(record, token)
  if not started then return false, members, idle end

  -- first, as it says whether the process is there
  local isLast = count == tonumber(slots)
  if notify(process, cjson.encode({ 'claimed', claimId, count, isLast, now - since, queue, token, value })) == 0 then
    return false, members, nil
  end
  redis.call('HSET', queueKey(queue, 'texts'), numberOf(token), value)
  redis.call('ZADD', queueKey(queue, 'claimed'), integerText(now + lease), token)
  redis.call('SET', taskKey(id), started)
  redis.call('RPUSH', handedKey, token .. '/' .. queue)
  if count == 1 then redis.call('PEXPIRE', handedKey, integerText(lease + ${IDLE_MILLIS})) end
  if subscribers ~= '-' then hintSubscribers(id, subscribers, false) end

  if isLast then
    for _, one in ipairs(queues) do redis.call('ZREM', queueKey(one, 'idle'), process) end
  else
    -- the next message goes to another process, if one has claimed within about the last second
    local idleKey = queueKey(queue, 'idle')
    local last = redis.call('ZRANGEBYSCORE', idleKey, now - ${IDLE_MILLIS / 2}, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local back = last[2] and math.min(claimedAt, last[2] - 0.01) or claimedAt
    redis.call('ZADD', idleKey, string.format('%.2f', back), process)
  end
  return true
end
`
