/** Starting runs: for `start`, and for the fused claim. Encoding, Lua and decoding. */
import type { EndedByStart, StartDefaults, Started } from "../../../BackendDriver.ts"
import { longestMillis } from "../../../internal/millis.ts"
import * as FieldText from "../../FieldText.ts"
import { millis } from "../../scriptArguments.ts"

/** Encodes what the starts of one task have in common. */
export const encodeStartDefaults = (start: StartDefaults): ReadonlyArray<string> => [
  FieldText.encode(start.task),
  millis(start.leaseMillis),
  `${start.maxCrashes}`,
  millis(start.retentionMillis),
  millis(start.deadLetterRetentionMillis)
]

/** Decodes the worker of a record; `undefined` for one that this store did not encode. */
const decodeWorker = (field = "-"): string | undefined =>
  field === "-" ? undefined : FieldText.decode(field)

/** Decodes the answer to a start. */
export const decodeStarted = (answer: string): Started => {
  // a first run, for which the numbers are known
  if (answer === "R") return { _tag: "Run", fence: 1, attempt: 1, retries: 0, crashes: 0 }
  if (answer === "D") return { _tag: "Drop" }
  const [tag, ...fields] = answer.split(" ")
  if (tag === "N") return { _tag: "NoRecord" }
  if (tag === "D") {
    const [reason, attempt, crashes, worker] = fields
    return {
      _tag: "Drop",
      ended: {
        reason: reason as EndedByStart["reason"],
        attempt: Number(attempt),
        crashes: Number(crashes),
        worker: decodeWorker(worker) ?? null
      }
    }
  }
  const [first = 0, attempt = 0, retries = 0, crashes = 0] = fields.map(Number)
  // A time that was edited by hand may be no safe integer.
  if (tag === "B") return { _tag: "Busy", millis: Number.isSafeInteger(first) ? first : longestMillis }
  const run = { _tag: "Run", fence: first, attempt, retries, crashes } as const
  return fields.length > 4 ? { ...run, lostWorker: decodeWorker(fields[4]) ?? "unknown" } : run
}

/**
 * Lua: the common case, the first start of a plain task: `startFirstRun` after `prepareFirstRuns`, which is called for each
 * `group`.
 */
export const firstRunsLua = /* lua */ `
-- what the starts that are read have in common
local group

-- the text of a plain record, of one in which nothing but the delay and its message is unusual
local function withoutDelay(value)
  return (string.gsub(value, '^(%S+ %S+ %S+) %+ (%S+ %S+ %d+ %d+ %d+ %d+ %d+) %d+ (.*)( %- %- %- %- %- %- %- %-) %d+:%d+:%d+:%d+/%S+\\n$',
    '%1 - %2 - %3%4 -\\n'))
end

-- S10, the common case: the first start of a plain task, or of one that is plain but for its delay. Returns the
-- record's text after it, and the subscribers; nil where the task has to be looked at field by field.
local function startFirstRun(value, token)
  if not group.before or string.find(value, 'PENDING - ', 1, true) ~= 1 then return nil end
  local after = string.find(value, ' ', 11, true)
  if after and string.byte(value, after + 1) == 43 then value = withoutDelay(value) end
  if not after or string.find(value, group.before, after, true) ~= after then return nil end
  -- the clock of the server may have been set back, or be that of another server; as texts of 13 digits, times compare fast
  local rest = after + #group.before
  if string.byte(value, rest + 13) ~= 32 or string.sub(value, rest, rest + 12) > nowText then return nil end
  local subscribers = string.sub(value, 11, after - 1)
  return 'STARTED ' .. token .. ' ' .. subscribers .. group.after .. string.sub(value, rest), subscribers
end

-- Prepares the common case for starts of the first generation: the fields after the subscribers up to the incarnation, before
-- such a start and after it.
local function prepareFirstRuns()
  if group.generation ~= '0' or group.atMostOnce ~= '-' then return end
  local message = ' ' .. group.task .. ' ' .. group.incarnation .. ' '
  group.before = ' - ' .. group.retention .. ' - 0 0 0 0 0 - - - - -' .. message
  group.after = ' - ' .. group.retention .. ' ' .. group.lease .. ' 0 1 0 0 1 - ' .. nowText .. ' ' .. group.worker
    .. ' ' .. group.process .. ' ' .. group.deadLetterRetention .. message
end
`

/**
 * Lua: starts runs (rules S0 to S10 of `internal/task/transitions.ts`). Needs `deadLettersLua` and `lapseLua`.
 *
 * The answer to a start is `R <fence> <attempt> <retries> <crashes>`, and the worker whose run had lapsed, if a crash was
 * counted for it, or `R` alone for the first run of a task; `D` (drop), or `D <reason> <attempt> <crashes> <worker>` where
 * the start ended the task; `N` (no record); `B <millis>` (busy); or `L`: the task would end as `WorkerLost`, and the call
 * has to be repeated with the message's body, for the dead letter. Nothing is written for an `L`.
 */
export const startsLua = /* lua */ `
${firstRunsLua}
local function runAnswer(record)
  return 'R ' .. record[FENCE] .. ' ' .. record[ATTEMPT] .. ' ' .. record[RETRIES] .. ' ' .. record[CRASHES]
end

local function endAnswer(record, ended)
  return 'D ' .. ended .. ' ' .. record[ATTEMPT] .. ' ' .. record[CRASHES] .. ' ' .. record[WORKER]
end

local function startAnyRun(id, value, token, body)
  local generation = group.generation
  local record = value and parseRecord(id, value)
  -- S0
  if not record then return 'N' end
  -- S1
  if record[STATE] == 'STARTED' and record[TOKEN] == token then
    record[TIME] = group.lease
    saveRecord(record)
    setDeadline(record)
    return runAnswer(record)
  end
  -- S2, S3
  local newer = tonumber(generation) - tonumber(record[GENERATION])
  if TERMINAL[record[STATE]] or newer < 0 or record[TASK] ~= group.task or record[INCARNATION] ~= group.incarnation then
    return 'D'
  end
  local lostWorker
  if record[STATE] ~= 'STARTED' then
    -- S4
    local ended = endIfLapsed(record)
    if ended then return endAnswer(record, ended) end
    -- S5
    local dueAt = record[STATE] == 'RETRY' and tonumber(record[DUE_AT])
    if dueAt and dueAt > now then return 'B ' .. integerText(dueAt - now) end
  else
    -- S6
    if tonumber(record[TIME]) > now then return 'B ' .. integerText(record[TIME] - now) end
    -- S7, S8
    local ended = endIfLapsed(record)
    if ended then return endAnswer(record, ended) end
    -- S9
    record[CRASHES] = integerText(record[CRASHES] + 1)
    if tonumber(record[CRASHES]) >= group.maxCrashes then
      if not body then return 'L' end
      endLostRun(record, group.queue, body)
      return endAnswer(record, 'WorkerLost')
    end
    if newer == 0 then lostWorker = record[WORKER] end
  end
  -- S10
  removeDeadline(record)
  if newer > 0 then
    removeHistory(record)
    record[GENERATION], record[ATTEMPT], record[RETRIES], record[CRASHES] = generation, '0', '0', '0'
    record[STOP], record[STARTED_AT], record[PROGRESS] = '-', '-', '-'
    record[ENDED], record[EXPIRES_AT], record[ENQUEUED_AT] = '-', '-', nowText
  end
  record[STATE], record[TOKEN], record[TIME], record[DUE_AT] = 'STARTED', token, group.lease, '-'
  record[ATTEMPT] = integerText(record[ATTEMPT] + 1)
  record[FENCE] = integerText(record[FENCE] + 1)
  record[WORKER], record[PROCESS], record[RETENTION] = group.worker, group.process, group.retention
  record[DEAD_LETTER_RETENTION], record[AT_MOST_ONCE] = group.deadLetterRetention, group.atMostOnce
  record[RESERVED_UNTIL], record[DELAYED_MESSAGE] = '-', '-'
  if record[STARTED_AT] == '-' then record[STARTED_AT] = integerText(math.max(now, tonumber(record[ENQUEUED_AT]) or 0)) end
  saveRecord(record)
  if group.atMostOnce ~= '-' then
    countText(body, '', 2)
    redis.call('HSET', base .. ':body:' .. id, 'queue', group.queue, 'body', body)
  end
  setDeadline(record)
  hintChange(record)
  return lostWorker and runAnswer(record) .. ' ' .. lostWorker or runAnswer(record)
end

-- a field of a record: '-' for an empty argument
local function nextField()
  local value = nextText()
  return value == '' and '-' or value
end

local function nextStartDefaults()
  return { task = nextText(), lease = integerText(now + nextNumber()), maxCrashes = nextNumber(),
    retention = nextField(), deadLetterRetention = nextField() }
end
`
