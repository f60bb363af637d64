/** Publishes a ping of a process over its own channel, so that it sees whether its subscription is alive. */
import type { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { notifyLua, preludeLua, PROCESS_MARK_MILLIS } from "./lib/prelude.ts"

/** The message says whether the process missed nothing: no message reached no subscriber, and its mark is still there. */
const lua = (clustered: boolean): string => /* lua */ `
${preludeLua}${whenFullLua}${notifyLua(clustered)}
local process, round = nextText(), nextText()
local key = base .. ':alive:' .. process
local mark = redis.call('GETSET', key, 'heard')
redis.call('PEXPIRE', key, ${PROCESS_MARK_MILLIS})
notify(process, cjson.encode({'ping', round, mark == 'heard'}))
`

/** Makes the operation for a process. */
export const ping = ({ clustered, run }: ScriptRunner, process: string) => {
  const script = Script.make(lua(clustered))
  return (shard: number, round: number): Effect.Effect<null, RedisError> =>
    run(script, shard, [process, `${round}`])
}
