/** Subscribers in Lua: the processes that are subscribed to a task, and the hints that are sent to them. */

/** How long subscribers of a task that does not exist yet are kept. */
const PENDING_SUBSCRIBERS_MILLIS = 86_400_000

/** What a hint says of a task that has changed, and of one that has ended and whose record it does not carry. */
export const CHANGED = ""
export const ENDED = "-"

/** Bytes of the last record of a task that a hint carries, and of all records of one message, at most. */
const HINTED_BYTES = 8 * 1024
const MESSAGE_BYTES = 256 * 1024

/**
 * Lua: collects hints, which `sendHints` sends at the end of the script, and edits the subscribers of a record: `a` (every
 * change) or `e` (the end alone) and the process, divided by commas.
 *
 * Subscribers of a task that does not exist yet lie under a separate key, `:early:<id>`. Nearly always there are none,
 * as the absence of the single key `:early` shows.
 */
export const subscribersLua = /* lua */ `
-- for each process the ids of tasks, each followed by what is known of it
local hints, hintedBytes = {}, {}
local function addHint(process, id, known)
  local message, bytes = hints[process], hintedBytes[process] or 0
  if not message then
    message = { 'changed' }
    hints[process] = message
  end
  if #known > ${HINTED_BYTES} or bytes + #known > ${MESSAGE_BYTES} then known = '${ENDED}' end
  hintedBytes[process] = bytes + #known
  message[#message + 1] = id
  message[#message + 1] = known
end

-- hints a change, or an end; of an end also the last text of the record, where it is known
local function hintSubscribers(id, subscribers, isEnd, ended)
  local known = isEnd and (ended or '${ENDED}') or '${CHANGED}'
  for kind, process in string.gmatch(subscribers, '(%a)([^,]+)') do
    if isEnd or kind == 'a' then addHint(process, id, known) end
  end
end

local function hintChange(record)
  if record[SUBSCRIBERS] ~= '-' then hintSubscribers(record.id, record[SUBSCRIBERS], false) end
end

-- the last change of all, after which there are no subscribers
local function hintEnd(record)
  if record[SUBSCRIBERS] == '-' then return end
  hintSubscribers(record.id, record[SUBSCRIBERS], true)
  record[SUBSCRIBERS] = '-'
end

local function sendHints()
  for process, message in pairs(hints) do notify(process, cjson.encode(message)) end
end

-- the subscribers with one more; nil where that changes nothing
local function addSubscriber(subscribers, kind, process)
  if subscribers == '-' then return kind .. process end
  local listed = ',' .. subscribers .. ','
  if string.find(listed, ',a' .. process .. ',', 1, true) then return nil end
  local at = string.find(listed, ',e' .. process .. ',', 1, true)
  if not at then return subscribers .. ',' .. kind .. process end
  if kind == 'e' then return nil end
  return string.sub(subscribers, 1, at - 1) .. 'a' .. string.sub(subscribers, at + 1)
end

local function removeSubscriber(subscribers, process)
  local left = {}
  for one in string.gmatch(subscribers, '[^,]+') do
    if string.sub(one, 2) ~= process then left[#left + 1] = one end
  end
  return #left == 0 and '-' or table.concat(left, ',')
end

local pendingSubscribers
local function hasPendingSubscribers()
  if pendingSubscribers == nil then pendingSubscribers = redis.call('EXISTS', base .. ':early') == 1 end
  return pendingSubscribers
end

local function addPendingSubscriber(id, kind, process)
  local key = base .. ':early:' .. id
  local subscribers = addSubscriber(getText(key) or '-', kind, process)
  if subscribers then redis.call('SET', key, subscribers, 'PX', ${PENDING_SUBSCRIBERS_MILLIS}) end
  redis.call('SET', base .. ':early', '1', 'PX', ${PENDING_SUBSCRIBERS_MILLIS})
end

-- a new record takes over the subscribers that waited for it
local function adoptPendingSubscribers(record)
  if not hasPendingSubscribers() then return end
  local key = base .. ':early:' .. record.id
  local subscribers = getText(key)
  if not subscribers then return end
  redis.call('DEL', key)
  for kind, process in string.gmatch(record[SUBSCRIBERS], '(%a)([^,]+)') do
    subscribers = addSubscriber(subscribers, kind, process) or subscribers
  end
  record[SUBSCRIBERS] = subscribers
  hintChange(record)
end
`
