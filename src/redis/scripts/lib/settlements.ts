/** Settling runs: for `settle`, and for the fused settle. Encoding, Lua and decoding. */
import type { Settled, Settlement } from "../../../BackendDriver.ts"
import { maxHistorySize } from "../../../internal/defaults.ts"
import * as BodyText from "../../BodyText.ts"
import * as FieldText from "../../FieldText.ts"
import { millis } from "../../scriptArguments.ts"

/**
 * Encodes what neighbouring settlements may have in common: the code of the outcome, and a retention or a delay. The
 * codes are `S` (success), `F` (failure), `L` (failure with a dead letter), `R` (retry) and `P` (release).
 */
export const encodeSettlementHead = ({ outcome }: Settlement): ReadonlyArray<string> => {
  switch (outcome._tag) {
    case "Success":
      return ["S", millis(outcome.retentionMillis)]
    case "Failure":
      return [outcome.deadLetter === undefined ? "F" : "L", millis(outcome.retentionMillis)]
    case "Retry":
      return ["R", millis(outcome.afterMillis)]
    case "Release":
      return ["P", ""]
  }
}

/** Encodes the rest of a settlement. */
export const pushSettlement = (
  args: Array<string>,
  { id, outcome, token }: Settlement,
  encodedToken = FieldText.encode(token)
): void => {
  args.push(id, encodedToken)
  if (outcome._tag === "Retry") args.push(outcome.failure ?? "")
  if (outcome._tag === "Success") args.push(outcome.exit)
  if (outcome._tag !== "Failure") return
  args.push(outcome.exit)
  if (outcome.deadLetter === undefined) return
  const { body, queue, reason, retentionMillis } = outcome.deadLetter
  args.push(reason, queue, BodyText.encode(body), millis(retentionMillis))
}

/** Decodes the answer to a settlement. */
export const decodeSettled = (code: string): Settled =>
  code === "S" ? "Stored" : code === "C" ? "Cancelled" : "Lost"

/**
 * Lua: `settleNext` reads and settles one run (rules T1 to T7 of `internal/task/transitions.ts`). Needs `deadLettersLua` and
 * `lapseLua`.
 *
 * The answer is `S` (stored), `C` (ended as cancelled) or `L` (lost).
 */
export const settlementsLua = /* lua */ `
-- the answer to the settlement of a run that is not open any more
local function settleAgain(record, outcome, exit)
  if TERMINAL[record[STATE]] then
    -- T5
    if record[ENDED] == 'Cancelled' then return (outcome == 'R' or outcome == 'P') and 'C' or 'L' end
    -- T4, T7
    local state = outcome == 'S' and 'SUCCESS' or 'FAILURE'
    return exit and record[STATE] == state and exitOf(record) == exit and 'S' or 'L'
  end
  -- T6, T7
  return outcome == (record[DUE_AT] == '-' and 'P' or 'R') and 'S' or 'L'
end

-- adds the failure of an attempt to the history of the record's generation
local function addFailure(record, failure)
  if failure == '' then return end
  local key = base .. ':history:' .. record.id
  local before = record[RETRIES] ~= '0' and getText(key) or ''
  local history = string.sub(before .. failure, -${maxHistorySize})
  countText(history, before, before == '' and 1 or 0)
  redis.call('SET', key, history)
end

local function retryOrRelease(record, outcome, after, delayedMessage, failure)
  -- T2
  if record[STOP] ~= '-' then
    endTask(record, 'FAILURE', nil, 'Cancelled')
    return 'C'
  end
  -- T3
  removeDeadline(record)
  removeRunBody(record)
  if outcome == 'R' then
    addFailure(record, failure)
    record[RETRIES] = integerText(record[RETRIES] + 1)
    record[DUE_AT] = integerText(now + after)
    record[DELAYED_MESSAGE] = delayedMessage or '-'
  else
    record[ATTEMPT] = integerText(record[ATTEMPT] - 1)
  end
  record[STATE] = record[RETRIES] == '0' and 'PENDING' or 'RETRY'
  record[AT_MOST_ONCE] = '-'
  saveRecord(record)
  setDeadline(record)
  hintChange(record)
  return 'S'
end

-- T3, the common case: the success of a plain run. Returns whether it was one; if not, nothing is written.
local function succeedPlain(id, token, retention, tail, exit)
  local key = base .. ':task:' .. id
  local value = getText(key)
  if not value or string.sub(value, 1, 8) ~= 'STARTED ' or string.find(value, token, 9, true) ~= 9 then return false end
  local at = 9 + #token
  local after = string.find(value, ' ', at + 1, true)
  if not after or string.byte(value, at) ~= 32 or string.find(value, tail, after, true) ~= after then return false end
  local rest = string.find(value, ' ', after + #tail, true)
  if not rest then return false end
  local ended = 'SUCCESS ' .. token .. ' -' .. tail .. nowText .. string.sub(value, rest) .. exit
  countText(ended, value, 1)
  redis.call('SET', key, ended, 'PX', retention)
  local subscribers = string.sub(value, at + 1, after - 1)
  if subscribers ~= '-' then hintSubscribers(id, subscribers, true, ended) end
  return true
end

-- An empty token stands for that of the claim. A retry may know the message that waits with it.
local function settleNext(outcome, time, tail, claimToken, delayedMessage)
  local id, token = nextText(), nextText()
  if token == '' then token = claimToken end
  local exit, deadLetter, failure
  if outcome == 'R' then failure = nextText() elseif outcome ~= 'P' then exit = nextText() end
  if tail and succeedPlain(id, token, time, tail, exit) then return 'S' end
  if outcome == 'L' then
    deadLetter = { reason = nextText(), queue = nextText(), body = nextText(), retention = nextNumber() }
  end
  local record = findRecord(id)
  -- T1
  if not record or record[TOKEN] ~= token then return 'L' end
  if record[STATE] ~= 'STARTED' then return settleAgain(record, outcome, exit) end
  if not exit then return retryOrRelease(record, outcome, tonumber(time), delayedMessage, failure) end
  -- T3
  record[RETENTION] = time == '' and '-' or time
  if deadLetter then
    addRunDeadLetter(record, deadLetter.queue, deadLetter.body, deadLetter.reason, exit, deadLetter.retention)
  end
  endTask(record, outcome == 'S' and 'SUCCESS' or 'FAILURE', exit)
  return 'S'
end

-- the fields after the subscribers up to the time, in the record of a plain run; false where the success has to be written
-- field by field
local function plainTail(outcome, time)
  return outcome == 'S' and time ~= '' and time ~= '0' and ' - ' .. time .. ' '
end
`
