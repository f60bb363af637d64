/** Lists the ids of dead letters, newest first. */
import { Array as Arr, Effect } from "effect"
import type { BackendDriver } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import {
  deadLettersLua,
  encodeQuery,
  idOf,
  newestFirst,
  orderOf,
  removeExpiredDeadLettersLua,
  visitDeadLettersLua
} from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Returns a page of a shard: for each dead letter its score and its member. */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    removeExpiredDeadLettersLua,
    visitDeadLettersLua,
    `
removeExpiredDeadLetters()
local task, limit, before, order = nextText(), nextNumber(), nextText(), nextNumber()
local found = {}
visitDeadLetters(task, before, order, function(member, at)
  if hasDeadLetter(string.sub(member, 18)) then
    found[#found + 1] = at
    found[#found + 1] = member
  end
  return #found < 2 * limit
end)
return found
`
  )

/** Makes the operation. Each shard returns a page, and the newest of all are kept. */
export const listDeadLetterIds = ({
  clustered,
  everyShard,
  run
}: ScriptRunner): BackendDriver<RedisStoreError>["listDeadLetterIds"] => {
  const script = Script.make<ReadonlyArray<string>>(lua(clustered))
  return Effect.fnUntraced(function* (query) {
    const pages = yield* everyShard((shard) => run(script, shard, encodeQuery(query)))
    return pages
      .flatMap((page) => Arr.chunksOf(page, 2))
      .map(([at, member]) => ({ id: idOf(member!), at: Number(at), order: orderOf(member!) ?? 0 }))
      .sort(newestFirst)
      .slice(0, query.limit)
  })
}
