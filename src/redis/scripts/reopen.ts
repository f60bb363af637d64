/** Opens the tasks of dead letters for their next generation. */
import type { BackendDriver, Reopened } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
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
local reserved = nextNumber()
local reservedUntil = reserved and integerText(now + reserved) or '-'

-- a text as a field of a record, as FieldText encodes it
local function fieldText(text)
  if text == '' then return '%' end
  if text == '-' then return '%2D' end
  return (string.gsub(text, '[%%%s]', function(byte) return string.format('%%%02X', string.byte(byte)) end))
end

-- whether the dead letter may be replayed
local function reopen(deadLetterId)
  local v = deadLetterFields(deadLetterId, 'taskId', 'task', 'generation', 'fence', 'retention', 'incarnation', 'queue')
  if not v[1] then return true end
  local record, incarnation = findRecord(v[1]), v[6] or '-'
  -- R4
  if record and record[INCARNATION] ~= incarnation then return false end
  -- R5
  if record and record[RESERVED_UNTIL] ~= '-' and (record[STATE] == 'PENDING' or record[STATE] == 'RETRY')
    and tonumber(record[GENERATION]) == tonumber(v[3]) + 1 then
    if reserved and tonumber(record[RESERVED_UNTIL]) < tonumber(reservedUntil) then
      record[RESERVED_UNTIL] = reservedUntil
      saveRecord(record)
      setDeadline(record)
    end
    return true
  end
  -- R3
  if record and (not TERMINAL[record[STATE]] or tonumber(record[GENERATION]) > tonumber(v[3])) then return true end
  local opened = newRecord(v[1])
  opened[TASK], opened[INCARNATION], opened[GENERATION] = v[2], incarnation, integerText(v[3] + 1)
  opened[ENQUEUED_AT], opened[RESERVED_UNTIL] = nowText, reservedUntil
  if record then
    -- R2
    opened[FENCE], opened[RETENTION], opened[PAYLOAD_HASH] = record[FENCE], record[RETENTION], record[PAYLOAD_HASH]
    opened[QUEUE] = record[QUEUE]
    opened[KEY], opened[KEY_CLAIM] = record[KEY], record[KEY_CLAIM]
    keepKey(opened)
    if record[PROGRESS] ~= '-' then redis.call('DEL', base .. ':progress:' .. record.id) end
    removeHistory(record)
  else
    -- R1
    opened[FENCE], opened[RETENTION], opened[QUEUE] = v[4], v[5] or '-', v[7] and fieldText(v[7]) or '-'
  end
  adoptPendingSubscribers(opened)
  saveRecord(opened)
  setDeadline(opened)
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

type Answer = readonly [DeadLetterValues, replayable: number]

const decode = ([values, replayable]: Answer): Reopened => ({
  letter: decodeDeadLetter(values),
  replayable: replayable === 1
})

/** Makes the operation. */
export const reopen = (runner: ScriptRunner): BackendDriver<RedisStoreError>["reopen"] => {
  const script = Script.make<ReadonlyArray<Answer | null>>(lua(runner.clustered))
  return (ids, reservedMillis) => deadLettersById(runner, script, decode, [millis(reservedMillis)])(ids)
}
