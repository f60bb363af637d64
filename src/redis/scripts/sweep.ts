/** Ends overdue tasks, and removes records, dead letters and workers that are past their retention. */
import { Array as Arr, Effect } from "effect"
import type { BackendDriver, Swept } from "../../BackendDriver.ts"
import * as FieldText from "../FieldText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { freeKeys } from "./freeKeys.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"

/** How many members are removed from an index at once: that many values fit into one call. */
const MAX_REMOVED = 4_000

/**
 * How long one process sweeps alone. Every worker sweeps each five seconds, so another one takes over from a process that is
 * gone.
 */
const SWEEPER_MILLIS = 4_000

/**
 * Returns the number of swept items, the number of tasks that ended as `WorkerLost` and their names, and then the keys of
 * other shards that are to be freed: each with its holder, and its member in the index, which is removed by the next step.
 */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    `
local function parseForeignKeyMember(member)
  local ok, parts = pcall(cjson.decode, member)
  if not ok or type(parts) ~= 'table' then return nil end
  for i = 1, 3 do
    if type(parts[i]) ~= 'string' then return nil end
  end
  return parts[1], parts[2], parts[3]
end

local limit, process = nextNumber(), nextText()
local sweeper = redis.call('GET', base .. ':sweeper')
if sweeper and sweeper ~= process then return { 0, 0 } end
redis.call('SET', base .. ':sweeper', process, 'PX', ${SWEEPER_MILLIS})
local function due(index)
  return redis.call('ZRANGEBYSCORE', base .. index, '-inf', now, 'LIMIT', 0, limit)
end
local swept, lost = 0, {}
for _, id in ipairs(due(':deadlines')) do
  local record = findRecord(id)
  local ended = record and endIfLapsed(record)
  if not record then
    redis.call('ZREM', base .. ':deadlines', id)
  elseif ended == 'WorkerLost' then
    lost[#lost + 1] = record[TASK]
  elseif not ended then
    -- a reservation whose time is over, or a deadline that has moved
    local reservedUntil = not TERMINAL[record[STATE]] and tonumber(record[RESERVED_UNTIL])
    if reservedUntil and reservedUntil <= now then removeRecord(record) else setDeadline(record) end
  end
  swept = swept + 1
end
for _, id in ipairs(due(':letters-until')) do
  if not removeDeadLetter(id) then redis.call('ZREM', base .. ':letters-until', id) end
  swept = swept + 1
end
local workers = redis.call('HGETALL', base .. ':workers')
for i = 1, #workers, 2 do
  if tonumber(string.match(workers[i + 1], '^%d+ %d+ (%d+)') or '0') <= now then
    redis.call('HDEL', base .. ':workers', workers[i])
    swept = swept + 1
  end
end
local answer = { swept, #lost }
for _, task in ipairs(lost) do answer[#answer + 1] = task end
for _, member in ipairs(due(':foreign')) do
  local key, claim, id = parseForeignKeyMember(member)
  if not key then
    redis.call('ZREM', base .. ':foreign', member)
  elseif not holdsKey(findRecord(id), key, claim) then
    answer[#answer + 1] = key
    answer[#answer + 1] = claim .. ' ' .. id
    answer[#answer + 1] = member
  end
end
saveOverrun()
sendHints()
return answer
`
  )

/** Removes members from the index of keys in other shards. */
const removeForeignKeys = Script.make(`redis.call('ZREM', KEYS[1] .. ':foreign', unpack(ARGV))`)

/** Makes the operation. */
export const sweep = (runner: ScriptRunner, process: string): BackendDriver<RedisStoreError>["sweep"] => {
  const { clustered, keyspace, run } = runner
  const script = Script.make<readonly [swept: number, lost: number, ...lostAndForeignKeys: Array<string>]>(
    lua(clustered)
  )
  const free = freeKeys(runner)
  return Effect.fnUntraced(function* (limit): Effect.fn.Return<Swept, RedisStoreError> {
    let handled = 0
    const lost: Array<string> = []
    for (let shard = 0; shard < keyspace.shards && handled < limit; shard++) {
      const [swept, lostHere, ...rest] = yield* run(script, shard, [`${limit - handled}`, process])
      handled += swept
      for (const task of rest.slice(0, lostHere)) lost.push(FieldText.decode(task) ?? task)
      for (const some of Arr.chunksOf(Arr.chunksOf(rest.slice(lostHere), 3), MAX_REMOVED)) {
        yield* free(some.flatMap(([key, holder]) => [key, holder!]))
        yield* run(
          removeForeignKeys,
          shard,
          some.map(([, , member]) => member!)
        )
      }
    }
    return { handled, lost }
  })
}
