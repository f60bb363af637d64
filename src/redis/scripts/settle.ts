/** Settles runs. */
import { Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"
import { decodeSettled, encodeSettlementHead, pushSettlement, settlementsLua } from "./lib/settlements.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    settlementsLua,
    `
local answers = {}
while position < #ARGV do
  local outcome, time = nextText(), nextText()
  local tail = plainTail(outcome, time)
  for i = 1, nextNumber() do answers[#answers + 1] = settleNext(outcome, time, tail) end
end
saveOverrun()
sendHints()
return table.concat(answers)
`
  )

/** Makes the operation. */
export const settle = ({
  clustered,
  run,
  sharded
}: ScriptRunner): BackendDriver<RedisStoreError>["settle"] => {
  const script = Script.make<string>(lua(clustered))
  return (settlements) =>
    sharded(
      settlements,
      ({ id }) => id,
      (shard, some) =>
        Effect.map(run(script, shard, encodeGroups(some, encodeSettlementHead, pushSettlement)), (codes) =>
          Array.from(codes, decodeSettled)
        )
    )
}
