/** Releasing messages in Lua: for `release`, and for the fused settle. */

/**
 * Lua: puts a message back, due again after a time; a claim that is no longer held is passed over. Needs
 * `removeClaimLua` and `queuesLua`, whose `sendDueTimes` has to end the script.
 */
export const releasesLua = /* lua */ `
local function release(queue, member, after, preserveDueTime, body)
  if not removeClaim(queueKey(queue, 'claimed'), queue, member) then return end
  local id, due, priority, tag, since = parseMember(member)
  local readyAt = now + after
  if body then
    -- the head of the message stays
    local texts = queueKey(queue, 'texts')
    local value = redis.call('HGET', texts, id) or ''
    redis.call('HSET', texts, id, string.sub(value, 1, string.find(value, '\\n', 1, true) or 0) .. body)
  end
  member = memberOf(id, readyAt, priority, tag, preserveDueTime and (since or due) or nil)
  if after > 0 then
    redis.call('ZADD', queueKey(queue, 'delayed'), readyAt, member)
    wakeIdleAt(queue, readyAt)
  else
    redis.call('ZADD', queueKey(queue, 'ready'), rank(priority, readyAt), member)
    wakeIdle(queue, 1)
  end
end
`
