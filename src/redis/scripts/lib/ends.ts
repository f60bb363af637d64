/** Ends tasks in Lua: writes the end, and removes the record and the data that belong to it. */

/**
 * Lua: frees the key of a record, removes the message of a task that is not due yet, writes the end of a task, and removes a
 * record with all that belongs to it.
 */
export const endsLua = /* lua */ `
local function idempotencyKey(record)
  return base .. ':key:' .. record[KEY]
end

-- a key that may lie in another shard is freed by the first sweep after that time
local function freeKey(record, when)
  if record[KEY] == '-' then return end
  if record[KEY_IN_OTHER_SHARD] ~= '-' then
    redis.call('ZADD', base .. ':foreign', when, cjson.encode({ record[KEY], record.id }))
  elseif redis.call('GET', idempotencyKey(record)) == record.id then
    redis.call('DEL', idempotencyKey(record))
  end
end

-- the body that an open at-most-once run keeps, as its message is gone
local function removeRunBody(record)
  if record[AT_MOST_ONCE] ~= '-' then redis.call('DEL', base .. ':body:' .. record.id) end
end

-- The message of a task that ends before it is due: nobody needs it any more. One that is claimed or ready stays, and is
-- dropped when it is started.
local function removeDelayedMessage(record)
  local member, queue = string.match(record[DELAYED_MESSAGE], '^(%d+:%d+:%d+)/(.+)$')
  record[DELAYED_MESSAGE] = '-'
  if not member then return end
  local key = base .. ':queue:' .. string.gsub(queue, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
  if redis.pcall('ZREM', key .. ':delayed', member) ~= 1 then return end
  redis.call('HDEL', key .. ':texts', string.match(member, '^%d+'))
end

local function removeRecord(record)
  redis.call('DEL', taskKey(record.id))
  if record[PROGRESS] ~= '-' then redis.call('DEL', base .. ':progress:' .. record.id) end
  removeDeadline(record)
  removeRunBody(record)
  freeKey(record, now)
  hintEnd(record)
end

-- ends a task, in the state of its last write
local function endTask(record, state, exit, ended)
  if record[DELAYED_MESSAGE] ~= '-' then removeDelayedMessage(record) end
  -- F3
  if record[ENDED] == 'Forgotten' then return removeRecord(record) end
  removeDeadline(record)
  removeRunBody(record)
  record[STATE], record[TIME], record[ENDED] = state, nowText, ended or '-'
  hintEnd(record)
  local retention = record[RETENTION]
  if retention == '-' then
    redis.call('SET', taskKey(record.id), recordText(record, exit))
  elseif tonumber(retention) <= 0 then
    return removeRecord(record)
  else
    redis.call('SET', taskKey(record.id), recordText(record, exit), 'PX', retention)
    if record[PROGRESS] ~= '-' then redis.call('PEXPIRE', base .. ':progress:' .. record.id, retention) end
    if record[KEY] ~= '-' then
      if record[KEY_IN_OTHER_SHARD] ~= '-' then
        freeKey(record, now + retention)
      else
        redis.call('PEXPIRE', idempotencyKey(record), retention)
      end
    end
  end
end
`
