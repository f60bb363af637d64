/** Ends tasks in Lua: writes the end, and removes the record and the data that belong to it. */

/**
 * Lua: frees the key of a record, removes the message of a task that is not due yet, writes the end of a task, and removes a
 * record with all that belongs to it.
 */
export const endsLua = /* lua */ `
local function idempotencyKey(record)
  return base .. ':key:' .. record[KEY]
end

-- whether the entry of the key, in this shard, names the record
local function isKeyHolder(record)
  return redis.call('GET', idempotencyKey(record)) == record.id
end

-- whether the record holds the key under the claim
local function holdsKey(record, key, claim)
  return record and record[KEY] == key and record[KEY_CLAIM] == claim
end

-- a key that may lie in another shard: its member in the index of those that a sweep frees
local function foreignKeyMember(record)
  return cjson.encode({ record[KEY], record[KEY_CLAIM], record.id })
end

-- a key that may lie in another shard is freed by the first sweep after that time
local function freeKey(record, when)
  if record[KEY] == '-' then return end
  if record[KEY_CLAIM] ~= '-' then
    redis.call('ZADD', base .. ':foreign', when, foreignKeyMember(record))
  elseif isKeyHolder(record) then
    redis.call('DEL', idempotencyKey(record))
  end
end

-- frees the key of a record when its text expires: that many milliseconds from now
local function freeKeyAfter(record, millis)
  if record[KEY] == '-' then return end
  if record[KEY_CLAIM] ~= '-' then
    freeKey(record, now + millis)
  elseif isKeyHolder(record) then
    redis.call('PEXPIRE', idempotencyKey(record), millis)
  end
end

-- keeps the key of a record whose text does not expire any more
local function keepKey(record)
  if record[KEY] == '-' then return end
  if record[KEY_CLAIM] ~= '-' then
    redis.call('ZREM', base .. ':foreign', foreignKeyMember(record))
  elseif isKeyHolder(record) then
    redis.call('PERSIST', idempotencyKey(record))
  end
end

-- the body that an open at-most-once run keeps, as its message is gone
local function removeRunBody(record)
  if record[AT_MOST_ONCE] ~= '-' then redis.call('DEL', base .. ':body:' .. record.id) end
end

-- The message of a task that ends before it is due: nobody needs it any more. One that is claimed or ready stays, and is
-- dropped when it is started.
local function removeDelayedMessage(record)
  local member, queue = string.match(record[DELAYED_MESSAGE], '^(%d+:%d+:%d+:%d+)/(.+)$')
  record[DELAYED_MESSAGE] = '-'
  if not member then return end
  local key = base .. ':queue:' .. string.gsub(queue, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
  if redis.pcall('ZREM', key .. ':delayed', member) ~= 1 then return end
  redis.call('HDEL', key .. ':texts', string.match(member, '^%d+'))
end

-- the failures of a task that was retried in this generation
local function removeHistory(record)
  if record[RETRIES] ~= '0' then redis.call('DEL', base .. ':history:' .. record.id) end
end

local function removeRecord(record)
  countText('', record.value)
  redis.call('DEL', taskKey(record.id))
  removeHistory(record)
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
  record[STATE], record[TIME], record[ENDED], record[DUE_AT] = state, nowText, ended or '-', '-'
  local retention, subscribers = record[RETENTION], record[SUBSCRIBERS]
  if retention ~= '-' and tonumber(retention) <= 0 then return removeRecord(record) end
  record[SUBSCRIBERS] = '-'
  local text = recordText(record, exit)
  -- progress is not part of the text
  if subscribers ~= '-' then hintSubscribers(record.id, subscribers, true, record[PROGRESS] == '-' and text or nil) end
  countText(text, record.value, 1)
  if retention == '-' then
    redis.call('SET', taskKey(record.id), text)
  else
    redis.call('SET', taskKey(record.id), text, 'PX', retention)
    if record[PROGRESS] ~= '-' then redis.call('PEXPIRE', base .. ':progress:' .. record.id, retention) end
    if record[RETRIES] ~= '0' then redis.call('PEXPIRE', base .. ':history:' .. record.id, retention) end
    freeKeyAfter(record, retention)
  end
end
`
