/** Opens the tasks of dead letters for their next generation. */
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersById, deadLettersLua, readDeadLetterLua } from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    readDeadLetterLua,
    `
local function reopen(deadLetterId)
  local v = deadLetterFields(deadLetterId, 'taskId', 'task', 'generation', 'fence', 'retention')
  if not v[1] then return end
  local record = findRecord(v[1])
  -- R3
  if record and (not TERMINAL[record[STATE]] or tonumber(record[GENERATION]) > tonumber(v[3])) then return end
  local opened = newRecord(v[1])
  opened[TASK], opened[GENERATION], opened[ENQUEUED_AT] = v[2], integerText(v[3] + 1), nowText
  if record then
    -- R2
    opened[FENCE], opened[RETENTION], opened[PAYLOAD_HASH] = record[FENCE], record[RETENTION], record[PAYLOAD_HASH]
    opened[KEY], opened[UNPUBLISHED] = record[KEY], record[UNPUBLISHED]
    opened[KEY_IN_OTHER_SHARD] = record[KEY_IN_OTHER_SHARD]
    if record[KEY] ~= '-' then
      if record[KEY_IN_OTHER_SHARD] ~= '-' then
        redis.call('ZREM', base .. ':foreign', cjson.encode({ record[KEY], record.id }))
      else
        redis.call('PERSIST', idempotencyKey(record))
      end
    end
    if record[PROGRESS] ~= '-' then redis.call('DEL', base .. ':progress:' .. record.id) end
  else
    -- R1
    opened[FENCE], opened[RETENTION] = v[4], v[5] or '-'
  end
  adoptPendingSubscribers(opened)
  saveRecord(opened)
  setDeadline(opened)
end

local answers = {}
while position < #ARGV do
  local id = nextText()
  local deadLetter = readDeadLetter(id)
  if deadLetter then reopen(id) end
  answers[#answers + 1] = deadLetter
end
sendHints()
return answers
`
  )

/** Makes the operation. */
export const reopen = (runner: ScriptRunner): BackendDriver<RedisStoreError>["reopen"] =>
  deadLettersById(runner, Script.make(lua(runner.clustered)))
