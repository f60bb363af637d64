import { claimFunctions } from "./claim.ts"
import { createFunctions } from "./create.ts"
import { ackFunctions, publishFunctions, queueFunctions, releaseFunctions } from "./messages.ts"
import { letters, overRecords } from "./records.ts"
import { settleFunctions, starting } from "./run.ts"

/** `create`, and `publish` of what was created: a group of records, the head of their messages, and their texts. */
export const enqueue = (clustered: boolean): string =>
  overRecords(
    clustered,
    createFunctions,
    publishFunctions,
    `
local answers = {}
while at < #ARGV do
  local made, values = {}, {}
  createGroup(made)
  local queue, priority, delay = text(), number(), number()
  for _, answer in ipairs(made) do
    local value = text()
    if answer == 'C' then values[#values + 1] = value end
    answers[#answers + 1] = answer
  end
  if #values > 0 then publish(queue, priority, delay, values) end
end
tell()
return answers
`
  )

/**
 * `claim`, and `start` of what may be started at once: at-least-once runs of the tasks whose terms are given. The token
 * of such a run is its claim.
 *
 * Answers as `claim` does, with a fourth text for each message: what `start` answers, or nothing where it is still to
 * be started, or to be looked at.
 */
export const claim = (clustered: boolean): string =>
  overRecords(
    clustered,
    letters,
    starting,
    queueFunctions,
    claimFunctions,
    `
local ask, queues, terms = readClaim(), {}, {}
for i = 1, number() do queues[i] = text() end
while at < #ARGV do
  local one = readTerms()
  terms[one.task] = one
end

-- The head of a message behind its id: neighbours nearly always have the same. Nil where its task may not be started
-- here.
local known = {}
local function useTerms(value, after)
  local ends = string.find(value, '\\n', after, true)
  if not ends then return nil end
  if known.head and ends - after + 1 == #known.head and string.find(value, known.head, after, true) == after then
    return known.group
  end
  local head = string.sub(value, after, ends)
  local task, generation, expires = string.match(head, '^ (%S+) (%d+) (%d*)\\n$')
  local one = task and terms[task]
  -- numbers that no program can hold are looked at by the worker
  if not one or #generation > 15 or #expires > 15 then return nil end
  group = { worker = ask.worker, process = ask.process, task = task, once = '-', generation = generation,
    expires = expires == '' and '-' or integer(now + expires), lease = one.lease, maxCrashes = one.maxCrashes,
    retention = one.retention, letters = one.letters }
  prepare()
  known.head, known.group = head, group
  return group
end

local answer = { now, -1 }
take(ask, queues, answer, function(number, claimed, texts)
  local ids, keys, places, groups = {}, {}, {}, {}
  for i = 1, #claimed / 2 do
    local value, last = texts[i] or '', #answer
    answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = number, claimed[2 * i], value, ''
    -- an id that had to be encoded is started by itself
    local after = string.find(value, '[ %%]')
    local its = after and after > 1 and string.byte(value, after) == 32 and useTerms(value, after)
    if its then
      local id, at = string.sub(value, 1, after - 1), #ids + 1
      ids[at], keys[at], places[at], groups[at] = id, base .. ':task:' .. id, last + 4, its
    end
  end
  local values, seen, written = getAll(keys), {}, {}
  for i, id in ipairs(ids) do
    local place = places[i]
    local token = answer[place - 2]
    group = groups[i]
    group.queue = queues[number]
    local started, watchers
    if values[i] and not seen[id] then started, watchers = startFirst(values[i], token) end
    if started then
      written[#written + 1] = keys[i]
      written[#written + 1] = started
      if watchers ~= '-' then tellWatchers(id, watchers, false) end
      answer[place] = 'R'
    else
      -- it may stand among what is still to be written
      if #written > 0 then redis.call('MSET', unpack(written)) end
      written = {}
      local answered = startSlowly(id, token, nil)
      if answered ~= 'L' then answer[place] = answered end
    end
    seen[id] = true
  end
  if #written > 0 then redis.call('MSET', unpack(written)) end
end)
tell()
return answer
`
  )

/** `settle`, and what follows for the message of each: its queue and member come first. */
export const settle = (clustered: boolean): string =>
  overRecords(
    clustered,
    ...settleFunctions,
    queueFunctions,
    ackFunctions,
    releaseFunctions,
    `
local answers, over = {}, {}
local function settleOne(outcome, time, tail, queue)
  local member = text()
  local answer = settle(outcome, time, tail, member)
  answers[#answers + 1] = answer
  if answer == 'L' then return end
  if answer == 'S' and (outcome == 'R' or outcome == 'P') then
    release(queue, member, tonumber(time) or 0)
  else
    over[#over + 1] = member
  end
end

while at < #ARGV do
  local outcome, time, queue = text(), text(), text()
  local tail = tailOf(outcome, time)
  for i = 1, number() do settleOne(outcome, time, tail, queue) end
  if #over > 0 then ack(queue, over, {}) end
  over = {}
end
tell()
return table.concat(answers)
`
  )
