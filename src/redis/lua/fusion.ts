import { createFunctions } from "./creating.ts"
import { ackFunctions, publishFunctions, releaseFunctions } from "./messages.ts"
import { settleFunctions } from "./running.ts"

/** `create`, and `publish` of what was created: a group of records, the head of their messages, and their texts. */
export const enqueue = (clustered: boolean): string => `${createFunctions(clustered)}${publishFunctions}
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

/** `settle`, and what follows for the message of each: its queue and member come first. */
export const settle = (
  clustered: boolean
): string => `${settleFunctions(clustered)}${publishFunctions}${ackFunctions}${releaseFunctions}
local answers, over = {}, {}
local function settleOne(outcome, time)
  local queue, member = text(), text()
  local answer = settle(outcome, time)
  answers[#answers + 1] = answer
  if answer == 'L' then return end
  if answer == 'S' and (outcome == 'R' or outcome == 'P') then
    release(queue, member, tonumber(time) or 0)
  else
    over[queue] = over[queue] or {}
    table.insert(over[queue], member)
  end
end

while at < #ARGV do
  local outcome, time = text(), text()
  for i = 1, number() do settleOne(outcome, time) end
end
for queue, members in pairs(over) do ack(queue, members, {}) end
tell()
return table.concat(answers)
`
