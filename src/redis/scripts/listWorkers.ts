/** Lists the workers whose heartbeat is alive. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import * as heartbeatCodec from "../../internal/driver/heartbeatCodec.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { preludeLua } from "./lib/prelude.ts"
import { REGISTRY_SHARD } from "./lib/workers.ts"

const lua = `${preludeLua}
local found = {}
local all = redis.call('HGETALL', base .. ':workers')
for i = 2, #all, 2 do
  if tonumber(string.match(all[i], '^%d+ %d+ (%d+) ') or '0') > now then found[#found + 1] = all[i] end
end
return found
`

const decode = (text: string): heartbeatCodec.StoredHeartbeat => {
  const [startedAt, seenAt, , ...rest] = text.split(" ")
  return { info: rest.join(" "), startedAt: Number(startedAt), seenAt: Number(seenAt) }
}

/** Makes the operation. */
export const listWorkers = ({ run }: ScriptRunner): BackendDriver<RedisStoreError>["workers"] =>
  Effect.flatMap(run(Script.make<ReadonlyArray<string>>(lua), REGISTRY_SHARD, []), (texts) =>
    heartbeatCodec.decodeAll(texts.map(decode))
  )
