import { letters, overRecords } from "./records.ts"

export const park = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    `
while at < #ARGV do
  local id, keep = text(), number()
  local fields = { 'queue', text(), 'reason', text(), 'exit', text(), 'body', text(), 'generation', 0, 'attempts', 0,
    'fence', 0 }
  if not hasLetter(id) then
    dropLetter(id)
    addLetter(id, keep, nil, fields)
  end
end
`
  )

/** The fields of a letter that an answer carries, in this order. */
export const FIELDS = [
  "id",
  "taskId",
  "task",
  "generation",
  "queue",
  "reason",
  "exit",
  "worker",
  "body",
  "attempts",
  "at"
] as const

const reading = /* lua */ `
local function readLetter(id)
  if not hasLetter(id) then return false end
  return fieldsOf(id, ${FIELDS.map((field) => `'${field}'`).join(", ")})
end

-- removes letters whose retention is over from the indexes
local function prune()
  repeat
    local over = redis.call('ZRANGEBYSCORE', base .. ':letters-until', '-inf', now, 'LIMIT', 0, 1000)
    for _, id in ipairs(over) do
      if not dropLetter(id) then redis.call('ZREM', base .. ':letters-until', id) end
    end
  until #over < 1000
end
`

export const getDeadLetters = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    reading,
    `
local answers = {}
while at < #ARGV do answers[#answers + 1] = readLetter(text()) end
return answers
`
  )

/**
 * Opens tasks for their next generation. An unfinished record, or one of a later generation, is left alone.
 */
export const reopen = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    reading,
    `
local function open(id)
  local v = fieldsOf(id, 'taskId', 'task', 'generation', 'fence', 'retention')
  if not v[1] then return end
  local record = find(v[1])
  if record and (not FINAL[record[STATE]] or tonumber(record[GENERATION]) > tonumber(v[3])) then return end
  local opened = fresh(v[1])
  opened[TASK], opened[GENERATION], opened[ENQUEUED] = v[2], integer(v[3] + 1), today
  if record then
    opened[FENCE], opened[RETENTION], opened[HASH] = record[FENCE], record[RETENTION], record[HASH]
    opened[KEY], opened[FOREIGN], opened[UNPUBLISHED] = record[KEY], record[FOREIGN], record[UNPUBLISHED]
    if record[KEY] ~= '-' then
      if record[FOREIGN] ~= '-' then
        redis.call('ZREM', base .. ':foreign', cjson.encode({ record[KEY], record.id }))
      else
        redis.call('PERSIST', keyOf(record))
      end
    end
    if record[PROGRESS] ~= '-' then redis.call('DEL', base .. ':progress:' .. record.id) end
  else
    opened[FENCE], opened[RETENTION] = v[4], v[5] or '-'
  end
  adoptWatchers(opened)
  save(opened)
  schedule(opened)
end

local answers = {}
while at < #ARGV do
  local id = text()
  local letter = readLetter(id)
  if letter then open(id) end
  answers[#answers + 1] = letter
end
tell()
return answers
`
  )

/** The place of a letter in the order of all: when, and its name in the index. */
export const placeOf = /* lua */ `
local member = redis.call('HGET', KEYS[1] .. ':letter:' .. ARGV[1], 'member')
return { member and redis.call('ZSCORE', KEYS[1] .. ':letters', member), member }
`

/** A page, newest first; after a place, if one is given. Each letter is followed by its place. */
export const page = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    reading,
    `
prune()
local task, limit, before, member = text(), number(), text(), text()
local index = base .. ':letters'
if task ~= '' then index = index .. ':' .. task end
local found, offset = {}, 0
repeat
  local members = redis.call('ZREVRANGEBYSCORE', index, before, '-inf', 'WITHSCORES', 'LIMIT', offset, 100)
  for i = 1, #members, 2 do
    local passed = member ~= '' and tonumber(members[i + 1]) == tonumber(before) and members[i] >= member
    if not passed and #found < 3 * limit then
      local letter = readLetter(string.sub(members[i], 17))
      if letter then
        found[#found + 1] = letter
        found[#found + 1] = members[i + 1]
        found[#found + 1] = members[i]
      end
    end
  end
  offset = offset + 100
until #members < 200 or #found >= 3 * limit
return found
`
  )

export const count = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    reading,
    `
prune()
local task = text()
return redis.call('ZCARD', task == '' and base .. ':letters' or base .. ':letters:' .. task)
`
  )

/** Answers one digit for each. */
export const remove = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    `
local answers = {}
while at < #ARGV do
  local id = text()
  local there = hasLetter(id)
  dropLetter(id)
  answers[#answers + 1] = there and '1' or '0'
end
return table.concat(answers)
`
  )
