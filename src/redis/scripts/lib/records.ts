/** Records in Lua: how a script reads, parses and writes them. */
import { FIELDS, UNUSUAL_FIELDS } from "../../RecordText.ts"

type Field = (typeof FIELDS)[number]

/** The fields of a new record that are not `-`. */
const initial: Readonly<Partial<Record<Field, string>>> = {
  state: "PENDING",
  generation: "0",
  attempt: "0",
  retries: "0",
  crashes: "0",
  fence: "0"
}

const COUNTS: ReadonlySet<Field> = new Set(["generation", "attempt", "retries", "crashes", "fence"])
const TIMES: ReadonlySet<Field> = new Set([
  "retention",
  "time",
  "dueAt",
  "deadLetterRetention",
  "expiresAt",
  "reservedUntil"
])

const patternOf = (field: Field): string =>
  COUNTS.has(field) ? "(%d+)" : TIMES.has(field) ? "(%-?%d*)" : "(%S+)"

const constantOf = (field: Field): string => field.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()

const indexOf: ReadonlyMap<string, number> = new Map(
  FIELDS.map((field, index) => [constantOf(field), index + 1])
)

/**
 * Replaces the constants of fields, such as `record[STATE]`, by their index. As locals they would be carried into every
 * function that names them, each time a script runs.
 */
export const withFieldIndexes = (lua: string): string =>
  lua.replace(/\[([A-Z_]+)\]/g, (text, constant) =>
    indexOf.has(constant) ? `[${indexOf.get(constant)}]` : text
  )

/**
 * Lua: records, each a table of its fields by index (see `RecordText`), with `id` and, where it was read, `value`, its
 * text.
 */
export const recordsLua = /* lua */ `
local FIELD_COUNT = ${FIELDS.length}
local TERMINAL = { SUCCESS = true, FAILURE = true }
local nowText = integerText(now)

local function taskKey(id)
  return base .. ':task:' .. id
end

local function newRecord(id)
  return { ${FIELDS.map((field) => `'${initial[field] ?? "-"}'`).join(", ")}, id = id }
end

-- the text of a key; false where there is none, or a value of another kind
local function getText(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value
end

-- the texts of many keys; 4,000 values fit into one call
local function getTexts(keys)
  local values = {}
  for i = 1, #keys, 4000 do
    local some = redis.call('MGET', unpack(keys, i, math.min(i + 3999, #keys)))
    for j, value in ipairs(some) do values[i + j - 1] = value end
  end
  return values
end

-- the record of a text; nil where it was edited by hand into something else, which counts as absent
local function parseRecord(id, value)
  local record = { string.match(value, '^${FIELDS.map(patternOf).join(" ")}\\n') }
  if not record[FIELD_COUNT] then return nil end
  record.id = id
  record.value = value
  return record
end

local function findRecord(id)
  local value = getText(base .. ':task:' .. id)
  return value and parseRecord(id, value) or nil
end

local function exitOf(record)
  return string.sub(record.value, string.find(record.value, '\\n', 1, true) + 1)
end

local function recordText(record, exit)
  record[PLAIN] = (record[RETRIES] == '0' and ${UNUSUAL_FIELDS.map((field) => `record[${constantOf(field)}] == '-'`).join(" and ")}) and '-' or '+'
  return table.concat(record, ' ', 1, FIELD_COUNT) .. '\\n' .. (exit or '')
end

local function saveRecord(record)
  local text = recordText(record)
  countText(text, record.value)
  redis.call('SET', base .. ':task:' .. record.id, text)
end

-- whether the record may lie in the index of deadlines
local function mayHaveDeadline(record)
  return record[EXPIRES_AT] ~= '-' or record[RESERVED_UNTIL] ~= '-' or record[AT_MOST_ONCE] ~= '-' or record[STOP] ~= '-'
end
`
