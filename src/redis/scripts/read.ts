/** Reads records, and subscribes a process to them. */
import { Effect, identity } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import * as defaults from "../../internal/defaults.ts"
import { decodeReply } from "../fieldDecoding.ts"
import * as RecordText from "../RecordText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"
import { TEXTS_AT_ONCE } from "./lib/replySize.ts"

/**
 * Subscribes the process, if one is given, to the records that are not final: to every change (`a`), or to the end alone
 * (`e`). A task that lapsed is ended first. Returns how many records it read, at least one, and no more than fit into the
 * answer; then the text of each record, and the progress of those that have some.
 */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    `
local process, kind, maxSize = nextText(), nextText(), nextNumber()
local answers, progress, size = { 0 }, {}, 0

-- the common case: a plain record. Returns its text; nil where it has to be looked at field by field.
local function readPlain(id, value)
  local subscribers, after = string.match(value, '^[PSRF]%u+ %S+ (%S+)() %- ')
  if not after then return nil end
  if process == '' or TERMINAL[string.sub(value, 1, 7)] then return value end
  local more = addSubscriber(subscribers, kind, process)
  if more then
    redis.call('SET', taskKey(id), string.sub(value, 1, after - #subscribers - 1) .. more .. string.sub(value, after))
  end
  return value
end

local function readAny(id)
  local record = findRecord(id)
  if record and endIfLapsed(record) then record = findRecord(id) end
  if not record then
    -- a full memory takes no subscribers of unknown ids, which may never come; they are read at intervals
    if process ~= '' and not isFull then addPendingSubscriber(id, kind, process) end
    -- a value that is no record is returned as it is, and fails to decode
    return getText(taskKey(id)) or redis.call('EXISTS', taskKey(id)) == 1 and '' or false
  end
  if process ~= '' and not TERMINAL[record[STATE]] then
    local more = addSubscriber(record[SUBSCRIBERS], kind, process)
    if more then
      record[SUBSCRIBERS] = more
      redis.call('SET', taskKey(id), recordText(record, exitOf(record)), 'KEEPTTL')
    end
  end
  if record[PROGRESS] ~= '-' then
    local value = redis.call('GET', base .. ':progress:' .. id)
    progress[#progress + 1] = value
    size = size + #(value or '')
  end
  return record.value
end

-- Reads a record into the answer; returns false, and reads nothing, where it does not fit.
local seen = {}
local function readNext(value)
  local bytes = value and #value or 0
  if size > 0 and size + bytes > maxSize then return false end
  size = size + bytes
  local id = nextText()
  -- a record that was asked for before may have been written since the texts were read
  answers[#answers + 1] = value and not seen[id] and readPlain(id, value) or readAny(id)
  seen[id] = true
  return true
end

local isCut = false
while position < #ARGV and not isCut do
  local keys = {}
  for i = position + 1, math.min(position + ${TEXTS_AT_ONCE}, #ARGV) do keys[#keys + 1] = base .. ':task:' .. ARGV[i] end
  for _, value in ipairs(getTexts(keys)) do
    isCut = not readNext(value)
    if isCut then break end
  end
end
answers[1] = #answers - 1
for _, one in ipairs(progress) do answers[#answers + 1] = one end
saveOverrun()
sendHints()
return answers
`
  )

/** A process, and the changes that it subscribes to. */
export interface Subscriber {
  readonly process: string
  readonly until: "change" | "end"
}

type Records = ReadonlyArray<TaskRecord | undefined>

/** How many records, and then their texts and the progress of those that have some. */
type Answer = readonly [count: number, ...texts: Array<string | null>]

/** In place of a record that did not fit into the answer of its shard. */
const NOT_READ = Symbol("not read")

/** Returns the records before the first that was not read. */
const untilNotRead = (all: ReadonlyArray<TaskRecord | undefined | typeof NOT_READ>): Records => {
  const end = all.indexOf(NOT_READ)
  return (end < 0 ? all : all.slice(0, end)) as Records
}

/** Makes the operation. */
export const read = ({ clustered, keyspace, run, sharded }: ScriptRunner) => {
  const script = Script.make<Answer>(lua(clustered))

  const decode = (shard: number, ids: ReadonlyArray<string>, [count, ...texts]: Answer) => {
    let next = count
    const progressOf = () => texts[next++] ?? undefined
    return ids.map((id, i) => {
      if (i >= count) return NOT_READ
      const value = texts[i] ?? null
      return value === null
        ? undefined
        : RecordText.decode(`${keyspace.base(shard)}:task:${id}`, id, value, progressOf)
    })
  }

  return (ids: ReadonlyArray<string>, subscriber?: Subscriber): Effect.Effect<Records, RedisStoreError> => {
    const maxSize = Math.ceil(defaults.maxReplySize / Math.min(keyspace.shards, ids.length))
    const subscribed =
      subscriber === undefined ? ["", ""] : [subscriber.process, subscriber.until === "end" ? "e" : "a"]
    const head = [...subscribed, `${maxSize}`]
    const read = sharded(ids, identity, (shard, some) =>
      Effect.flatMap(run(script, shard, [...head, ...some]), (answer) =>
        decodeReply(() => decode(shard, some, answer))
      )
    )
    return Effect.map(read, untilNotRead)
  }
}
