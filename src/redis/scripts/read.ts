/** Reads records, and subscribes a process to them. */
import { Effect, identity } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import { decodeReply } from "../fieldDecoding.ts"
import * as RecordText from "../RecordText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"

/**
 * Subscribes the process, if one is given, to the records that are not final: to every change (`a`), or to the end alone
 * (`e`). Returns the text of each record, and then the progress of those that have some. A task that lapsed is
 * ended first.
 */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    lapseLua,
    `
local process, kind = nextText(), nextText()
local answers, progress = {}, {}

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
    if process ~= '' then addPendingSubscriber(id, kind, process) end
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
    progress[#progress + 1] = redis.call('GET', base .. ':progress:' .. id)
  end
  return record.value
end

local keys, seen = {}, {}
for i = position + 1, #ARGV do keys[#keys + 1] = base .. ':task:' .. ARGV[i] end
local values = getTexts(keys)
for i = 1, #keys do
  local id = nextText()
  -- a record that was asked for before may have been written since the texts were read
  local value = values[i] and not seen[id] and readPlain(id, values[i]) or readAny(id)
  seen[id] = true
  answers[i] = value
end
for _, one in ipairs(progress) do answers[#answers + 1] = one end
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

/** Makes the operation. */
export const read = ({ clustered, keyspace, run, sharded }: ScriptRunner) => {
  const script = Script.make<ReadonlyArray<string | null>>(lua(clustered))

  const decode = (
    shard: number,
    ids: ReadonlyArray<string>,
    answers: ReadonlyArray<string | null>
  ): Records => {
    let next = ids.length
    const progressOf = () => answers[next++] ?? undefined
    return ids.map((id, i) => {
      const value = answers[i] ?? null
      return value === null
        ? undefined
        : RecordText.decode(`${keyspace.base(shard)}:task:${id}`, id, value, progressOf)
    })
  }

  return (ids: ReadonlyArray<string>, subscriber?: Subscriber): Effect.Effect<Records, RedisStoreError> => {
    const head =
      subscriber === undefined ? ["", ""] : [subscriber.process, subscriber.until === "end" ? "e" : "a"]
    return sharded(ids, identity, (shard, some) =>
      Effect.flatMap(run(script, shard, [...head, ...some]), (answers) =>
        decodeReply(() => decode(shard, some, answers))
      )
    )
  }
}
