/** Writes the heartbeat of a worker. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import * as heartbeatCodec from "../../internal/driver/heartbeatCodec.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { preludeLua } from "./lib/prelude.ts"
import { REGISTRY_SHARD } from "./lib/workers.ts"

/** A worker is kept as `<started> <seen> <until> <its heartbeat>`. */
const lua = `${preludeLua}${whenFullLua}
local id, ttl, description = nextText(), nextNumber(), nextText()
local started = now
local known = redis.call('HGET', base .. ':workers', id)
if known then
  local from, ends = string.match(known, '^(%d+) %d+ (%d+) ')
  if from and tonumber(ends) > now then started = tonumber(from) end
end
redis.call('HSET', base .. ':workers', id,
  integerText(started) .. ' ' .. integerText(now) .. ' ' .. integerText(now + ttl) .. ' ' .. description)
`

/** Makes the operation. */
export const heartbeat = ({ run }: ScriptRunner): BackendDriver<RedisStoreError>["heartbeat"] => {
  const script = Script.make(lua)
  return (worker, ttlMillis) =>
    Effect.flatMap(Effect.orDie(heartbeatCodec.encode(worker)), (description) =>
      Effect.asVoid(run(script, REGISTRY_SHARD, [worker.id, millis(ttlMillis), description]))
    )
}
