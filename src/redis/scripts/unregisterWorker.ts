/** Removes a worker from the registry. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { REGISTRY_SHARD } from "./lib/workers.ts"

const lua = /* lua */ `redis.call('HDEL', KEYS[1] .. ':workers', ARGV[1])`

/** Makes the operation. */
export const unregisterWorker = ({
  run
}: ScriptRunner): BackendDriver<RedisStoreError>["unregisterWorker"] => {
  const script = Script.make(lua)
  return (worker) => Effect.asVoid(run(script, REGISTRY_SHARD, [worker]))
}
