/** Opens the tasks of dead letters for their next generation. */
import type { BackendDriver, Reopened } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import {
  deadLettersById,
  deadLettersLua,
  type DeadLetterValues,
  decodeDeadLetter,
  readDeadLetterLua
} from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    readDeadLetterLua,
    `
-- whether the dead letter may be replayed
local function reopen(deadLetterId)
  local v = deadLetterFields(deadLetterId, 'taskId', 'task', 'generation', 'fence', 'retention', 'incarnation')
  if not v[1] then return true end
  local record, incarnation = findRecord(v[1]), v[6] or '-'
  -- R4
  if record and record[INCARNATION] ~= incarnation then return false end
  -- R3
  if record and (not TERMINAL[record[STATE]] or tonumber(record[GENERATION]) > tonumber(v[3])) then return true end
  local opened = newRecord(v[1])
  opened[TASK], opened[INCARNATION], opened[GENERATION] = v[2], incarnation, integerText(v[3] + 1)
  opened[ENQUEUED_AT] = nowText
  if record then
    -- R2
    opened[FENCE], opened[RETENTION], opened[PAYLOAD_HASH] = record[FENCE], record[RETENTION], record[PAYLOAD_HASH]
    opened[KEY], opened[KEY_CLAIM] = record[KEY], record[KEY_CLAIM]
    keepKey(opened)
    if record[PROGRESS] ~= '-' then redis.call('DEL', base .. ':progress:' .. record.id) end
  else
    -- R1
    opened[FENCE], opened[RETENTION] = v[4], v[5] or '-'
  end
  adoptPendingSubscribers(opened)
  saveRecord(opened)
  return true
end

local answers = {}
while position < #ARGV do
  local id = nextText()
  local deadLetter = readDeadLetter(id)
  answers[#answers + 1] = deadLetter and { deadLetter, reopen(id) and 1 or 0 }
end
sendHints()
return answers
`
  )

const decode = ([values, replayable]: readonly [DeadLetterValues, number]): Reopened => ({
  letter: decodeDeadLetter(values),
  replayable: replayable === 1
})

/** Makes the operation. */
export const reopen = (runner: ScriptRunner): BackendDriver<RedisStoreError>["reopen"] =>
  deadLettersById(runner, Script.make(lua(runner.clustered)), decode)
