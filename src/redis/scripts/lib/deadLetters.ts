/** Dead letters: how they are stored, in Lua, and how they are decoded. */
import { Effect } from "effect"
import type { DeadLetter, DeadLetterPosition, DeadLetterQuery } from "../../../BackendDriver.ts"
import type { Batch } from "../../../BrokerDriver.ts"
import { taskIdOf } from "../../../internal/driver/deadLetterId.ts"
import * as BodyText from "../../BodyText.ts"
import { decodeReply, HashFields } from "../../fieldDecoding.ts"
import * as FieldText from "../../FieldText.ts"
import { MAX_SHARDS } from "../../Keyspace.ts"
import type { RedisStoreError } from "../../RedisStoreError.ts"
import type { Script } from "../../Script.ts"
import type { ScriptRunner } from "../../ScriptRunner.ts"

/**
 * Lua: writes, finds and removes dead letters.
 *
 * A dead letter is a hash. Indexes hold all letters (`:letters`), those of a task name (`:letters:<task>`), both in the
 * order in which they were added, and the times at which they expire (`:letters-until`). The member of a letter begins
 * with its order: a number of 16 digits, which keeps letters of the same moment in order, and is another in every shard.
 */
export const deadLettersLua = /* lua */ `
local function deadLetterKey(id)
  return base .. ':letter:' .. id
end

-- a key of another kind holds no dead letter
local function deadLetterFields(id, ...)
  local values = redis.pcall('HMGET', deadLetterKey(id), ...)
  return values.err and {} or values
end

local function removeDeadLetter(id)
  local v = deadLetterFields(id, 'member', 'task')
  if not v[1] then return false end
  redis.call('DEL', deadLetterKey(id))
  redis.call('ZREM', base .. ':letters', v[1])
  if v[2] then redis.call('ZREM', base .. ':letters:' .. v[2], v[1]) end
  redis.call('ZREM', base .. ':letters-until', id)
  return true
end

local function addDeadLetter(id, retention, task, fields)
  local order = redis.call('INCR', base .. ':letters-order') * ${MAX_SHARDS} + string.match(base, ':(%d+)}$')
  local member = string.format('%016.0f:%s', order, id)
  local key = deadLetterKey(id)
  redis.call('HSET', key, 'id', id, 'member', member, 'at', nowText, unpack(fields))
  if isFull then countText(table.concat(fields), '', 4) end
  redis.call('ZADD', base .. ':letters', now, member)
  if task then
    redis.call('HSET', key, 'task', task)
    redis.call('ZADD', base .. ':letters:' .. task, now, member)
  end
  if retention then
    redis.call('HSET', key, 'until', now + retention)
    redis.call('ZADD', base .. ':letters-until', now + retention, id)
  end
end

local function hasDeadLetter(id)
  local v = deadLetterFields(id, 'member', 'until')
  return v[1] and (tonumber(v[2] or nil) or now + 1) > now
end
`

/** The fields of a dead letter that a reply carries, in this order. */
const FIELDS = [
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
  "at",
  "incarnation",
  "member"
] as const

/** Lua: reads a dead letter; `false` where there is none, or its retention is over. */
export const readDeadLetterLua = /* lua */ `
local function readDeadLetter(id)
  if not hasDeadLetter(id) then return false end
  return deadLetterFields(id, ${FIELDS.map((field) => `'${field}'`).join(", ")})
end
`

/**
 * Lua: calls `visit` with the members of the index and their scores, newest first, until it returns false: those of a task,
 * or with an empty text all; after a position, if there is one.
 */
export const visitDeadLettersLua = /* lua */ `
local function visitDeadLetters(task, before, order, visit)
  local index = base .. ':letters'
  if task ~= '' then index = index .. ':' .. task end
  local offset = 0
  repeat
    local members = redis.call('ZREVRANGEBYSCORE', index, before, '-inf', 'WITHSCORES', 'LIMIT', offset, 100)
    for i = 1, #members, 2 do
      local member, at = members[i], members[i + 1]
      local isPassed = order and tonumber(at) == tonumber(before) and (tonumber(string.sub(member, 1, 16)) or 0) >= order
      if not isPassed and not visit(member, at) then return end
    end
    offset = offset + 100
  until #members < 200
end
`

/** Encodes what both lists read: a task, a limit and a position. */
export const encodeQuery = ({ after, limit, task }: DeadLetterQuery): ReadonlyArray<string> => [
  task === undefined ? "" : FieldText.encode(task),
  `${limit}`,
  ...(after === undefined ? ["+inf", ""] : [`${after.at}`, `${after.order}`])
]

/** Compares as the index of a shard does. */
export const newestFirst = (self: DeadLetterPosition, that: DeadLetterPosition): number =>
  that.at - self.at || that.order - self.order

/** Lua: removes the dead letters whose retention is over, so that the indexes hold none of them. */
export const removeExpiredDeadLettersLua = /* lua */ `
local function removeExpiredDeadLetters()
  repeat
    local expired = redis.call('ZRANGEBYSCORE', base .. ':letters-until', '-inf', now, 'LIMIT', 0, 1000)
    for _, id in ipairs(expired) do
      if not removeDeadLetter(id) then redis.call('ZREM', base .. ':letters-until', id) end
    end
  until #expired < 1000
end
`

/** The fields of a dead letter, as `readDeadLetter` returns them. */
export type DeadLetterValues = ReadonlyArray<string | null>

const decodedOrNull = (fields: HashFields, at: number): string | null => {
  const field = fields.textOrNull(at)
  return field === null ? null : (FieldText.decode(field) ?? fields.fail(at))
}

/** Decodes a dead letter. A field that does not fit throws `CorruptKey`. */
export const decodeDeadLetter = (values: DeadLetterValues): DeadLetter => {
  const fields = new HashFields(`of the dead letter ${values[0]}`, FIELDS, values)
  return {
    id: fields.text(0),
    taskId: fields.textOrNull(1),
    task: decodedOrNull(fields, 2),
    incarnation: fields.textOrNull(11) ?? "",
    generation: fields.integer(3),
    queue: fields.text(4),
    reason: fields.text(5),
    exit: fields.textOrNull(6),
    worker: decodedOrNull(fields, 7),
    body: BodyText.decode(fields.text(8)),
    attempts: fields.integer(9),
    at: fields.integer(10),
    order: orderOf(fields.text(12)) ?? fields.fail(12)
  }
}

/** Returns the order of a member of the indexes; `undefined` for a member that the store did not write. */
export const orderOf = (member: string): number | undefined =>
  /^\d{16}:/.test(member) ? Number(member.slice(0, 16)) : undefined

/** Returns the id of the dead letter of a member. */
export const idOf = (member: string): string => member.slice(17)

/**
 * Makes an operation on dead letters by their ids, in each shard by the script. Each answer of the script is decoded;
 * `undefined` where there is no such dead letter.
 */
export const deadLettersById =
  <Answer, A>(
    { run, sharded }: ScriptRunner,
    script: Script<ReadonlyArray<Answer | null>>,
    decode: (answer: Answer) => A,
    head: ReadonlyArray<string> = []
  ) =>
  (ids: Batch<string>): Effect.Effect<ReadonlyArray<A | undefined>, RedisStoreError> =>
    sharded(ids, taskIdOf, (shard, some) =>
      Effect.flatMap(run(script, shard, [...head, ...some]), (found) =>
        decodeReply(() => found.map((answer) => (answer === null ? undefined : decode(answer))))
      )
    )
