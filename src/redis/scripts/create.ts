import { overRecords } from "./records.ts"

/**
 * `create`: groups of records that have everything in common but id, payload hash and key.
 *
 * A record is answered by `C`, by `E`, whether it is the same, whether it is published, and its id, or by `X`: its
 * id was burned for its key (see below).
 */
const creating = /* lua */ `
local function recordOf(ask)
  local new = fresh(ask.id)
  new[TASK], new[ENQUEUED], new[HASH] = ask.task, today, ask.hash
  new[RETENTION], new[EXPIRES] = ask.retention, ask.expires
  if not ask.published then new[UNPUBLISHED] = '1' end
  if ask.key then new[KEY] = ask.key end
  if ask.foreign then new[FOREIGN] = '1' end
  return new
end

local function create(ask)
  if ask.foreign and redis.call('GET', base .. ':burned:' .. ask.id) == ask.key then return 'X' end
  local record
  if ask.key and not ask.foreign then
    local holder = redis.call('GET', base .. ':key:' .. ask.key)
    if holder then record = find(holder) end
  end
  if not record then
    local new = recordOf(ask)
    record = find(ask.id)
    if not record then
      adoptWatchers(new)
      redis.call('SET', taskKey(ask.id), textOf(new))
      if ask.key and not ask.foreign then redis.call('SET', keyOf(new), ask.id) end
      schedule(new)
      return 'C'
    end
  end
  local unknown = record[HASH] == '-'
  local same = record[TASK] == ask.task and (unknown or ask.hash == '-' or record[HASH] == ask.hash)
  if same and unknown and record[ENDED] ~= 'Forgotten' then
    record[HASH] = ask.hash
    if record[ENQUEUED] == '-' then record[ENQUEUED] = today end
    if ask.key and record[KEY] == '-' then
      record[KEY] = ask.key
      if ask.foreign then record[FOREIGN] = '1' end
      local left = redis.call('PTTL', taskKey(record.id))
      if not ask.foreign then
        redis.call('SET', keyOf(record), record.id)
        if left >= 0 then redis.call('PEXPIRE', keyOf(record), left) end
      elseif left >= 0 then
        freeKey(record, now + left)
      end
    end
    redis.call('SET', taskKey(record.id), textOf(record, exitOf(record)), 'KEEPTTL')
  end
  return 'E' .. (same and '1' or '0') .. (record[UNPUBLISHED] == '-' and '1' or '0') .. record.id
end

-- what most of them come to: new records without a key or an id of the caller's, all in one command
local function createPlain(answers, ask, count)
  local value = textOf(recordOf(ask))
  local written = {}
  for i = 1, count do
    written[2 * i - 1] = base .. ':task:' .. ARGV[at + i]
    written[2 * i] = value
  end
  if redis.call('MSETNX', unpack(written)) == 0 then return false end
  for i = 1, count do answers[#answers + 1] = 'C' end
  at = at + count
  return true
end

local function createGroup(answers)
  local task, expires, retention, published = text(), number(), text(), text() == '1'
  local reserved, count = text() == '1', number()
  local ask = { task = task, published = published, hash = '-' }
  ask.retention = retention == '' and '-' or retention
  ask.expires = expires and integer(now + expires) or '-'
  local plain = published and not reserved and not expires and count <= 2000 and not isEarly()
  if plain and createPlain(answers, ask, count) then return end
  for i = 1, count do
    ask.id = text()
    if reserved then
      ask.hash, ask.key, ask.foreign = text(), text(), text() == '1'
      if ask.hash == '' then ask.hash = '-' end
      if ask.key == '' then ask.key = nil end
    end
    answers[#answers + 1] = create(ask)
  end
end
`

/** For `create`, and for the fused enqueue. */
export const createFunctions = creating

export const create = (clustered: boolean): string =>
  overRecords(
    clustered,
    creating,
    `
local answers = {}
while at < #ARGV do createGroup(answers) end
tell()
return answers
`
  )

export const markPublished = (clustered: boolean): string =>
  overRecords(
    clustered,
    `
while at < #ARGV do
  local record = find(text())
  if record and record[UNPUBLISHED] ~= '-' then
    unschedule(record)
    record[UNPUBLISHED] = '-'
    redis.call('SET', taskKey(record.id), textOf(record, exitOf(record)), 'KEEPTTL')
    if not FINAL[record[STATE]] then schedule(record) end
  end
end
`
  )

/**
 * Keys that may lie in another shard than the record they lead to, which is where there are several shards.
 *
 * Such a key is claimed first, then the record is made; who finds a key whose record is missing may take the key
 * over, after that id has been burned, so that a record that comes late is refused.
 */

/** Claims a key for an id; answers the id that holds it. */
export const claimKey = /* lua */ `
local entry = KEYS[1] .. ':key:' .. ARGV[1]
if redis.call('SET', entry, ARGV[2], 'NX') then return ARGV[2] end
return redis.call('GET', entry)
`

/** Passes a key from one id to another. */
export const passKey = /* lua */ `
local entry = KEYS[1] .. ':key:' .. ARGV[1]
if redis.call('GET', entry) ~= ARGV[2] then return 0 end
redis.call('SET', entry, ARGV[3])
return 1
`

/** Frees keys, each unless another id holds it. */
export const freeKeys = /* lua */ `
for i = 1, #ARGV, 2 do
  local entry = KEYS[1] .. ':key:' .. ARGV[i]
  if redis.call('GET', entry) == ARGV[i + 1] then redis.call('DEL', entry) end
end
`

/** How long an id stays burned: longer than a call may take. */
const BURNED_MILLIS = 600_000

/**
 * Looks a key's holder up. Where it does not hold the key (it is gone, or was never made), the id is burned for that
 * key: `create` under it will be refused.
 */
export const lookUpOrBurn = (clustered: boolean): string =>
  overRecords(
    clustered,
    `
local id, key = text(), text()
local record = find(id)
if record and record[FOREIGN] ~= '-' and record[KEY] == key then return 1 end
redis.call('SET', base .. ':burned:' .. id, key, 'PX', ${BURNED_MILLIS})
return 0
`
  )
