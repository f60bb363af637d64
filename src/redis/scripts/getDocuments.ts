/** Reads documents by their keys. */
import { Effect } from "effect"
import type { Documents } from "../../BackendDriver.ts"
import { decodeReply } from "../fieldDecoding.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { decodeDocument, DOCUMENTS_SHARD } from "./lib/documents.ts"
import { preludeLua } from "./lib/prelude.ts"

/** Returns a text for each key, `false` where there is none. */
const lua = `${preludeLua}
local found = {}
while position < #ARGV do
  local kind, key = nextText(), nextText()
  found[#found + 1] = redis.call('HGET', base .. ':documents:' .. kind, key)
end
return found
`

/** Makes the operation. */
export const getDocuments = (runner: ScriptRunner): Documents<RedisStoreError>["get"] => {
  const script = Script.make<ReadonlyArray<string | null>>(lua)
  return (keys) => {
    const args = keys.flatMap(({ key, kind }) => [kind, key])
    return Effect.flatMap(runner.run(script, DOCUMENTS_SHARD, args), (found) =>
      decodeReply(() => keys.map(({ key, kind }, i) => decodeDocument(runner, kind)(key, found[i])))
    )
  }
}
