/** Ends a process's subscriptions to tasks. */
import { Effect, identity } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    `
local process = nextText()
while position < #ARGV do
  local id = nextText()
  local record = findRecord(id)
  if record and record[SUBSCRIBERS] ~= '-' then
    local left = removeSubscriber(record[SUBSCRIBERS], process)
    if left ~= record[SUBSCRIBERS] then
      record[SUBSCRIBERS] = left
      redis.call('SET', taskKey(id), recordText(record, exitOf(record)), 'KEEPTTL')
    end
  elseif not record and hasPendingSubscribers() then
    local key = base .. ':early:' .. id
    local subscribers = getText(key)
    local left = subscribers and removeSubscriber(subscribers, process)
    if left == '-' then
      redis.call('DEL', key)
    elseif left then
      redis.call('SET', key, left, 'KEEPTTL')
    end
  end
end
`
  )

/** Makes the operation for a process. */
export const unsubscribe = ({ clustered, run, sharded }: ScriptRunner, process: string) => {
  const script = Script.make(lua(clustered))
  return (ids: ReadonlyArray<string>): Effect.Effect<void, RedisError> =>
    Effect.asVoid(
      sharded(ids, identity, (shard, some) => Effect.as(run(script, shard, [process, ...some]), some))
    )
}
