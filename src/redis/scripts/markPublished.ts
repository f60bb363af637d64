/** Marks reservations as published, and answers whether there is a record of that incarnation. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import * as IncarnationText from "../IncarnationText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Takes pairs of an id and an incarnation, and returns one digit for each: whether there is such a record. */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    `
local answers = {}
while position < #ARGV do
  local record, incarnation = findRecord(nextText()), nextText()
  if record and record[INCARNATION] ~= incarnation then record = nil end
  if record and record[RESERVED_UNTIL] ~= '-' then
    removeDeadline(record)
    record[RESERVED_UNTIL] = '-'
    redis.call('SET', taskKey(record.id), recordText(record, exitOf(record)), 'KEEPTTL')
    if not TERMINAL[record[STATE]] then setDeadline(record) end
  end
  answers[#answers + 1] = record and '1' or '0'
end
return table.concat(answers)
`
  )

/** Makes the operation. */
export const markPublished = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["markPublished"] => {
  const script = Script.make<string>(lua(clustered))
  return (records) =>
    sharded(
      records,
      ({ id }) => id,
      (shard, some) => {
        const pairs = some.flatMap(({ id, incarnation }) => [id, IncarnationText.encode(incarnation)])
        return Effect.map(run(script, shard, pairs), (digits) => Array.from(digits, (digit) => digit === "1"))
      }
    )
}
