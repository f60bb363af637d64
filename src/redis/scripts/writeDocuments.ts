/** Writes documents by compare-and-set. */
import { Effect } from "effect"
import type { Documents } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { DOCUMENTS_SHARD } from "./lib/documents.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { preludeLua } from "./lib/prelude.ts"

/** Returns a digit for each write. A value begins with `=`; an empty one removes the document. */
const lua = `${preludeLua}${whenFullLua}
local answers = {}
while position < #ARGV do
  local kind, key, expected, version, value = nextText(), nextText(), nextText(), nextText(), nextText()
  local documents, order = base .. ':documents:' .. kind, base .. ':documents-order:' .. kind
  local before = redis.call('HGET', documents, key) or ''
  local found = string.match(before, '^(%S*)')
  local answer = '0'
  if found == version or (found == '' and value == '') then
    answer = '1'
  elseif found == expected then
    answer = '1'
    if value == '' then
      countRemoved(documents, { key })
      redis.call('HDEL', documents, key)
      redis.call('ZREM', order, key)
    else
      local text = version .. ' ' .. string.sub(value, 2)
      countText(text, before, before == '' and 2 or 0)
      redis.call('HSET', documents, key, text)
      redis.call('ZADD', order, 0, key)
    end
  end
  answers[#answers + 1] = answer
end
saveOverrun()
return table.concat(answers)
`

/** Makes the operation. */
export const writeDocuments = ({ run }: ScriptRunner): Documents<RedisStoreError>["write"] => {
  const script = Script.make<string>(lua)
  return (writes) => {
    const args = writes.flatMap(({ expected = "", key, kind, value, version }) => [
      kind,
      key,
      expected,
      version,
      value === undefined ? "" : `=${value}`
    ])
    return Effect.map(run(script, DOCUMENTS_SHARD, args), (digits) =>
      Array.from(digits, (digit) => digit === "1")
    )
  }
}
