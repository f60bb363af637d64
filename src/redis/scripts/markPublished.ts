/** Marks reservations as published. */
import { Effect, identity } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    `
while position < #ARGV do
  local record = findRecord(nextText())
  if record and record[UNPUBLISHED] ~= '-' then
    removeDeadline(record)
    record[UNPUBLISHED] = '-'
    redis.call('SET', taskKey(record.id), recordText(record, exitOf(record)), 'KEEPTTL')
    if not TERMINAL[record[STATE]] then setDeadline(record) end
  end
end
`
  )

/** Makes the operation. */
export const markPublished = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["markPublished"] => {
  const script = Script.make(lua(clustered))
  return (ids) =>
    Effect.asVoid(sharded(ids, identity, (shard, some) => Effect.as(run(script, shard, some), some)))
}
