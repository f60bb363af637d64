/** Finds out when a store is opened what its user may not do, instead of with the first call that is denied. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import { CallFailed, explainDenial } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { preludeLua } from "./lib/prelude.ts"

/**
 * Runs every command of the scripts on a key of its own, which it removes again, and returns those that were denied. Other
 * errors, such as that of a full memory, do not matter.
 */
const lua = `${preludeLua}
local key = base .. ':rights:' .. nextText()
local channel = string.match(base, '^{(.*):%d+}$') .. ':process:rights'
local calls = {
  { 'EXISTS', key }, { 'GET', key }, { 'GETSET', key, '1' }, { 'SET', key, '1' }, { 'SETRANGE', key, 0, '' },
  { 'INCR', key }, { 'INCRBY', key, 1 }, { 'MGET', key }, { 'MSET', key, '1' }, { 'MSETNX', key, '1' },
  { 'PERSIST', key }, { 'PTTL', key }, { 'PEXPIRE', key, 1000 }, { 'DEL', key },
  { 'HSET', key, 'f', '1' }, { 'HGET', key, 'f' }, { 'HMGET', key, 'f' }, { 'HGETALL', key }, { 'HSTRLEN', key, 'f' },
  { 'HDEL', key, 'f' },
  { 'RPUSH', key, '1' }, { 'LPUSH', key, '1' }, { 'LLEN', key }, { 'LINDEX', key, 0 }, { 'LRANGE', key, 0, 0 },
  { 'LTRIM', key, 0, 0 }, { 'LPOP', key, 1 },
  { 'ZADD', key, 0, '1' }, { 'ZCARD', key }, { 'ZCOUNT', key, 0, 0 }, { 'ZRANGE', key, 0, 0 },
  { 'ZRANGEBYSCORE', key, 0, 0 }, { 'ZREVRANGEBYSCORE', key, 0, 0 }, { 'ZREMRANGEBYSCORE', key, 1, 1 },
  { 'ZREM', key, '2' }, { 'ZPOPMAX', key, 1 },
  { 'XADD', key, '1-1', 'f', '1' }, { 'XLEN', key }, { 'XRANGE', key, '-', '+' }, { 'XTRIM', key, 'MINID', '1-1' },
  { 'XDEL', key, '1-1' }, { 'DEL', key }, { 'PUBLISH', channel, '' }
}
local denied, isDenied = {}, {}
for _, call in ipairs(calls) do
  local answer = redis.pcall(unpack(call))
  local problem = type(answer) == 'table' and answer.err or ''
  if string.find(problem, 'NOPERM', 1, true) or string.find(problem, "The user executing the script can't", 1, true) then
    if not isDenied[call[1]] then denied[#denied + 1] = call[1] end
    isDenied[call[1]] = true
  end
end
return denied
`

const NO_CHANNEL =
  "The Redis user of this store may not publish on its channels, so nothing is hinted: waiters and workers learn of changes when" +
  " they ask again. It needs the channels that docs/redis.md names."

/** Fails, as a denied call does, where the user lacks a right. Warns where it lacks only that to publish hints. */
export const checkRights = ({ keyspace: { prefix }, run }: ScriptRunner): Effect.Effect<void, RedisError> => {
  const explain = explainDenial(prefix)
  return Effect.flatMap(run(Script.make<ReadonlyArray<string>>(lua), 0, [crypto.randomUUID()]), (denied) => {
    const commands = denied.filter((command) => command !== "PUBLISH")
    if (commands.length > 0) {
      const cause = new Error(`NOPERM this user may not use ${commands.join(", ")} on the keys of the store`)
      return Effect.fail(explain(new CallFailed({ cause })))
    }
    return denied.length > 0 ? Effect.logWarning(NO_CHANNEL) : Effect.void
  })
}
