/** Creating records: for `create`, and for the fused enqueue. Encoding, Lua and decoding. */
import type { Created, NewRecord } from "../../../BackendDriver.ts"
import * as FieldText from "../../FieldText.ts"
import * as IncarnationText from "../../IncarnationText.ts"
import { millis } from "../../scriptArguments.ts"

/** Encodes the idempotency key of a record: its task's name first, with its length, so that no two pairs read the same. */
export const encodeKey = ({ key, task }: NewRecord): string | undefined =>
  key === undefined ? undefined : FieldText.encode(`${task.length}:${task}${key}`)

/** Without a key or an id of the caller's there is nothing to compare, and no incarnation. */
const isCompared = ({ incarnation, key, payloadHash }: NewRecord): boolean =>
  key !== undefined || payloadHash !== "" || incarnation !== ""

/** Encodes what neighbouring records may have in common. The process is the one that subscribes where a record asks for it. */
export const encodeRecordHead =
  (process: string) =>
  (record: NewRecord): ReadonlyArray<string> => [
    FieldText.encode(record.task),
    FieldText.encode(record.queue),
    record.delayMillis > 0 ? millis(record.delayMillis) : "",
    millis(record.expiresMillis),
    millis(record.retentionMillis),
    millis(record.reservedMillis),
    record.subscribe === true ? process : "",
    isCompared(record) ? "1" : "0"
  ]

/** How many arguments are before the records of a group: the head, and their number. */
export const GROUP_HEAD = 9

/** Encodes the rest of a record. The claim is that of a key which may lie in another shard (see `KeyHolder`). */
export const pushRecord = (args: Array<string>, record: NewRecord, claim = ""): void => {
  args.push(record.id)
  if (!isCompared(record)) return
  args.push(IncarnationText.encode(record.incarnation), record.payloadHash, encodeKey(record) ?? "", claim)
}

/** The answer to a claim that holds no key any more: see `compareWithHolder`. */
export const REFUSED = "X"

/** How an answer begins to a record that exists under its id, and does not hold the key that was claimed for it. */
export const HOLDS_NO_KEY = "N"

/** Decodes the answer to a record that was created or found. */
export const decodeCreated = (answer: string): Created => {
  if (answer === "C") return { _tag: "Created" }
  const middle = answer.indexOf(" ")
  const end = answer.indexOf(" ", middle + 1)
  return {
    _tag: "Existing",
    id: answer.slice(end + 1),
    incarnation: IncarnationText.decode(answer.slice(middle + 1, end)),
    generation: Number(answer.slice(3, middle)),
    same: answer[1] === "1",
    published: answer[2] === "1"
  }
}

/**
 * Lua: `createGroup` creates a group of records that differ in id, incarnation, payload hash and key alone. It takes a
 * function that returns the delayed messages of so many records, if they have any.
 *
 * The answer to a record is `C` (created), `X` (the claim of its key has a tombstone), or `E` (existing) or `N` (existing,
 * and without the key that was claimed for it), followed by whether it is the same (0 or 1), whether it is published (0 or
 * 1), its generation, its incarnation, and its id, with blanks between the last three.
 */
export const createsLua = /* lua */ `
local function requestedRecord(request)
  local new = newRecord(request.id)
  new[TASK], new[INCARNATION], new[ENQUEUED_AT] = request.task, request.incarnation, nowText
  new[QUEUE], new[DUE_AT] = request.queue, request.dueAt
  new[PAYLOAD_HASH], new[RETENTION], new[EXPIRES_AT] = request.hash, request.retention, request.expires
  new[RESERVED_UNTIL], new[DELAYED_MESSAGE] = request.reservedUntil, request.delayedMessage
  new[SUBSCRIBERS] = request.subscribers
  if request.key then new[KEY], new[KEY_CLAIM] = request.key, request.claim end
  return new
end

local function findKeyHolder(key)
  local holder = redis.call('GET', base .. ':key:' .. key)
  local record = holder and findRecord(holder)
  return record and record[KEY] == key and record
end

-- gives the key of a request to an existing record
local function holdKey(record, request)
  record[KEY], record[KEY_CLAIM] = request.key, request.claim
  if request.claim == '-' then redis.call('SET', idempotencyKey(record), record.id) end
  local left = redis.call('PTTL', taskKey(record.id))
  if left >= 0 then freeKeyAfter(record, left) end
  redis.call('SET', taskKey(record.id), recordText(record, exitOf(record)), 'KEEPTTL')
end

-- Compares a request with the record that has its id or its key. Returns the answer without its first letter, and whether
-- they are the same.
local function compare(record, request)
  -- E1, E2
  local unknown = record[PAYLOAD_HASH] == '-'
  local same = record[TASK] == request.task and record[ENDED] ~= 'Forgotten'
    and (unknown or request.hash == '-' or record[PAYLOAD_HASH] == request.hash)
  -- E3
  if same and unknown then
    record[PAYLOAD_HASH] = request.hash
    redis.call('SET', taskKey(record.id), recordText(record, exitOf(record)), 'KEEPTTL')
  end
  -- E4
  if same and not TERMINAL[record[STATE]] and record[RESERVED_UNTIL] ~= '-' and request.reservedUntil ~= '-'
    and tonumber(record[RESERVED_UNTIL]) < tonumber(request.reservedUntil) then
    removeDeadline(record)
    record[RESERVED_UNTIL] = request.reservedUntil
    saveRecord(record)
    setDeadline(record)
  end
  local published = record[RESERVED_UNTIL] == '-'
  return (same and '1' or '0') .. (published and '1' or '0') .. record[GENERATION] .. ' '
    .. record[INCARNATION] .. ' ' .. record.id, same
end

local function create(request)
  local isClaimed = request.claim ~= '-'
  if isClaimed and redis.call('EXISTS', base .. ':burned:' .. request.claim) == 1 then return '${REFUSED}' end
  local holder = request.key and not isClaimed and findKeyHolder(request.key)
  if holder then return 'E' .. compare(holder, request) end
  local record = findRecord(request.id)
  if not record then
    local new = requestedRecord(request)
    adoptPendingSubscribers(new)
    redis.call('SET', taskKey(request.id), recordText(new))
    if request.key and not isClaimed then redis.call('SET', idempotencyKey(new), request.id) end
    setDeadline(new)
    return 'C'
  end
  local mayAdoptKey = record[PAYLOAD_HASH] == '-' and record[KEY] == '-'
  local answer, same = compare(record, request)
  if not request.key then return 'E' .. answer end
  -- E3; or the record has the key, and what led to it was lost
  local isHolder = record[KEY] == request.key or same and mayAdoptKey
  if isHolder then holdKey(record, request) end
  return (isHolder and 'E' or '${HOLDS_NO_KEY}') .. answer
end

-- the common case: new records without a key or an id of the caller's, all in one command
local function createNew(answers, request, count, delayedMessages)
  local value = recordText(requestedRecord(request))
  local written = {}
  for i = 1, count do
    if delayedMessages then
      request.delayedMessage = delayedMessages[i]
      value = recordText(requestedRecord(request))
    end
    written[2 * i - 1] = base .. ':task:' .. ARGV[position + i]
    written[2 * i] = value
  end
  if redis.call('MSETNX', unpack(written)) == 0 then return false end
  for i = 1, count do answers[#answers + 1] = 'C' end
  position = position + count
  return true
end

-- what the records of a group have in common, whether each has more, and their number
local function readGroup()
  local task, queue, delay = nextText(), nextText(), nextNumber()
  local expires, retention, reserved, subscriber = nextNumber(), nextText(), nextNumber(), nextText()
  local request = { task = task, queue = queue, incarnation = '-', hash = '-', claim = '-', delayedMessage = '-' }
  request.dueAt = delay and integerText(now + delay) or '-'
  request.subscribers = subscriber == '' and '-' or 'e' .. subscriber
  request.retention = retention == '' and '-' or retention
  request.expires = expires and integerText(now + expires) or '-'
  request.reservedUntil = reserved and integerText(now + reserved) or '-'
  return request, nextText() == '1', nextNumber()
end

-- the rest of a record
local function readRequest(request, isCompared)
  request.id = nextText()
  if not isCompared then return end
  local incarnation, hash, key, claim = nextText(), nextText(), nextText(), nextText()
  request.incarnation, request.hash = incarnation, hash == '' and '-' or hash
  request.key, request.claim = key ~= '' and key or nil, claim == '' and '-' or claim
end

local function createGroup(answers, reserveMessages)
  local request, isCompared, count = readGroup()
  local delayedMessages = reserveMessages and reserveMessages(count)
  local plain = request.reservedUntil == '-' and request.expires == '-' and not isCompared and count <= 2000
  if plain and not hasPendingSubscribers() and createNew(answers, request, count, delayedMessages) then return end
  for i = 1, count do
    readRequest(request, isCompared)
    if delayedMessages then request.delayedMessage = delayedMessages[i] end
    answers[#answers + 1] = create(request)
  end
end
`
