/** Acking messages in Lua: for `ack`, and for the fused settle. */
import { removeClaimLua } from "./handles.ts"

/** Lua: acks messages of a queue; sets a digit for each: whether its claim was held. Needs `queuesLua`. */
export const acksLua = `${removeClaimLua}
local function ack(queue, members, answers)
  local claimed, ids = queueKey(queue, 'claimed'), {}
  for i, member in ipairs(members) do
    local held = removeClaim(claimed, queue, member)
    if held then ids[#ids + 1] = numberOf(member) end
    answers[i] = held and '1' or '0'
  end
  if #ids == 0 then return end
  local texts = queueKey(queue, 'texts')
  countRemoved(texts, ids)
  callInChunks('HDEL', texts, ids)
end
`
