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

/** Encodes what neighbouring records may have in common. */
export const encodeRecordHead = (record: NewRecord): ReadonlyArray<string> => [
  FieldText.encode(record.task),
  millis(record.expiresMillis),
  millis(record.retentionMillis),
  millis(record.reservedMillis),
  isCompared(record) ? "1" : "0"
]

/** Encodes the rest of a record. */
export const pushRecord =
  (keyInOtherShard: boolean) =>
  (args: Array<string>, record: NewRecord): void => {
    args.push(record.id)
    if (!isCompared(record)) return
    args.push(
      IncarnationText.encode(record.incarnation),
      record.payloadHash,
      encodeKey(record) ?? "",
      keyInOtherShard ? "1" : ""
    )
  }

/** The answer to a record whose id has a tombstone for its key (see `verifyHolderOrTombstone`). */
export const REFUSED = "X"

/** Decodes the answer to a record that was created or found. */
export const decodeCreated = (answer: string): Created => {
  if (answer === "C") return { _tag: "Created" }
  const end = answer.indexOf(" ")
  return {
    _tag: "Existing",
    id: answer.slice(end + 1),
    incarnation: IncarnationText.decode(answer.slice(3, end)),
    same: answer[1] === "1",
    published: answer[2] === "1"
  }
}

/**
 * Lua: `createGroup` creates a group of records that differ in id, incarnation, payload hash and key alone. It takes a
 * function that returns the delayed messages of so many records, if they have any.
 *
 * The answer to a record is `C` (created), `X` (its id has a tombstone for its key), or `E` (existing), followed by
 * whether it is the same (0 or 1), whether it is published (0 or 1), its incarnation, a blank, and its id.
 */
export const createsLua = /* lua */ `
local function requestedRecord(request)
  local new = newRecord(request.id)
  new[TASK], new[INCARNATION], new[ENQUEUED_AT] = request.task, request.incarnation, nowText
  new[PAYLOAD_HASH], new[RETENTION], new[EXPIRES_AT] = request.hash, request.retention, request.expires
  new[RESERVED_UNTIL], new[DELAYED_MESSAGE] = request.reservedUntil, request.delayedMessage
  if request.key then new[KEY] = request.key end
  if request.keyInOtherShard then new[KEY_IN_OTHER_SHARD] = '1' end
  return new
end

local function create(request)
  if request.keyInOtherShard and redis.call('GET', base .. ':burned:' .. request.id) == request.key then return '${REFUSED}' end
  local record
  if request.key and not request.keyInOtherShard then
    local holder = redis.call('GET', base .. ':key:' .. request.key)
    if holder then record = findRecord(holder) end
  end
  if not record then
    local new = requestedRecord(request)
    record = findRecord(request.id)
    if not record then
      adoptPendingSubscribers(new)
      redis.call('SET', taskKey(request.id), recordText(new))
      if request.key and not request.keyInOtherShard then redis.call('SET', idempotencyKey(new), request.id) end
      setDeadline(new)
      return 'C'
    end
  end
  -- E1, E2
  local unknown = record[PAYLOAD_HASH] == '-'
  local same = record[TASK] == request.task and record[ENDED] ~= 'Forgotten'
    and (unknown or request.hash == '-' or record[PAYLOAD_HASH] == request.hash)
  -- E3
  if same and unknown then
    record[PAYLOAD_HASH] = request.hash
    if request.key and record[KEY] == '-' then
      record[KEY] = request.key
      if request.keyInOtherShard then record[KEY_IN_OTHER_SHARD] = '1' end
      local left = redis.call('PTTL', taskKey(record.id))
      if not request.keyInOtherShard then
        redis.call('SET', idempotencyKey(record), record.id)
        if left >= 0 then redis.call('PEXPIRE', idempotencyKey(record), left) end
      elseif left >= 0 then
        freeKey(record, now + left)
      end
    end
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
  return 'E' .. (same and '1' or '0') .. (record[RESERVED_UNTIL] == '-' and '1' or '0')
    .. record[INCARNATION] .. ' ' .. record.id
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

local function createGroup(answers, reserveMessages)
  local task, expires, retention, reserved = nextText(), nextNumber(), nextText(), nextNumber()
  local compared, count = nextText() == '1', nextNumber()
  local request = { task = task, incarnation = '-', hash = '-', delayedMessage = '-' }
  request.retention = retention == '' and '-' or retention
  request.expires = expires and integerText(now + expires) or '-'
  request.reservedUntil = reserved and integerText(now + reserved) or '-'
  local delayedMessages = reserveMessages and reserveMessages(count)
  local plain = not reserved and not compared and not expires and count <= 2000 and not hasPendingSubscribers()
  if plain and createNew(answers, request, count, delayedMessages) then return end
  for i = 1, count do
    request.id = nextText()
    if delayedMessages then request.delayedMessage = delayedMessages[i] end
    if compared then
      request.incarnation, request.hash, request.key = nextText(), nextText(), nextText()
      request.keyInOtherShard = nextText() == '1'
      if request.hash == '' then request.hash = '-' end
      if request.key == '' then request.key = nil end
    end
    answers[#answers + 1] = create(request)
  end
end
`
