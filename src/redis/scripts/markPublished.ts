/** Marks reservations as published, and answers whether there is a record of that incarnation. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import * as IncarnationText from "../IncarnationText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Takes an id, an incarnation and a generation for each, and returns a digit: whether there is such a record. */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    `
local answers = {}
while position < #ARGV do
  local record, incarnation, generation = findRecord(nextText()), nextText(), nextText()
  if record and record[INCARNATION] ~= incarnation then record = nil end
  if record and record[RESERVED_UNTIL] ~= '-' and record[GENERATION] == generation then
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
        const args = some.flatMap(({ generation, id, incarnation }) => [
          id,
          IncarnationText.encode(incarnation),
          `${generation}`
        ])
        return Effect.map(run(script, shard, args), (digits) => Array.from(digits, (digit) => digit === "1"))
      }
    )
}
