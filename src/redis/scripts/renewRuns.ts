/** Renews the leases of runs, and writes their progress. */
import { Effect } from "effect"
import type { BackendDriver, Renew, Renewed } from "../../BackendDriver.ts"
import * as FieldText from "../FieldText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import { millis } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Returns one code for each run: `H` (held), `C` (a cancel was requested), `L` (lost) or `P` (held without its progress, since the memory is full). */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    `
local answers = {}
while position < #ARGV do
  local id, token, lease, progress = nextText(), nextText(), nextNumber(), nextText()
  local record = findRecord(id)
  if not record or record[STATE] ~= 'STARTED' or record[TOKEN] ~= token then
    -- N1
    answers[#answers + 1] = 'L'
  else
    -- N2
    record[TIME] = integerText(now + lease)
    local isRefused = progress ~= '' and isFull
    if progress ~= '' and not isRefused then
      record[PROGRESS] = '1'
      redis.call('SET', base .. ':progress:' .. id, progress)
      hintChange(record)
    end
    saveRecord(record)
    setDeadline(record)
    -- N4
    answers[#answers + 1] = record[STOP] == '1' and 'C' or isRefused and 'P' or 'H'
  end
end
sendHints()
return table.concat(answers)
`
  )

const encode = (renewals: ReadonlyArray<Renew>): ReadonlyArray<string> =>
  renewals.flatMap(({ id, leaseMillis, progress, token }) => [
    id,
    FieldText.encode(token),
    millis(leaseMillis),
    progress ?? ""
  ])

const decode = (code: string): Renewed =>
  code === "H" ? "Held" : code === "C" ? "CancelRequested" : code === "P" ? "ProgressRefused" : "Lost"

/** Makes the operation. */
export const renewRuns = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["renew"] => {
  const script = Script.make<string>(lua(clustered))
  return (renewals) =>
    sharded(
      renewals,
      ({ id }) => id,
      (shard, some) => Effect.map(run(script, shard, encode(some)), (codes) => Array.from(codes, decode))
    )
}
