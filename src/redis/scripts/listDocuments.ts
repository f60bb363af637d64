/** Lists documents of a kind, in the order of their keys. */
import { Effect } from "effect"
import type { Document, Documents } from "../../BackendDriver.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { decodeDocument, DOCUMENTS_SHARD } from "./lib/documents.ts"
import { preludeLua } from "./lib/prelude.ts"

/** Returns keys, each with its text. */
const lua = `${preludeLua}
local kind, from, limit = nextText(), nextText(), nextNumber()
local keys = redis.call('ZRANGE', base .. ':documents-order:' .. kind, from, '+', 'BYLEX', 'LIMIT', 0, limit)
local answer = {}
for i, key in ipairs(keys) do
  answer[2 * i - 1] = key
  answer[2 * i] = redis.call('HGET', base .. ':documents:' .. kind, key) or ''
end
return answer
`

/** Makes the operation. */
export const listDocuments = ({ run }: ScriptRunner): Documents<RedisStoreError>["list"] => {
  const script = Script.make<ReadonlyArray<string>>(lua)
  return ({ after, kind, limit }) => {
    const from = after === undefined ? "-" : `(${after}`
    return Effect.map(run(script, DOCUMENTS_SHARD, [kind, from, `${limit}`]), (answer) => {
      const found: Array<Document> = []
      for (let i = 0; i + 1 < answer.length; i += 2) {
        const document = decodeDocument(kind, answer[i]!, answer[i + 1])
        if (document !== undefined) found.push(document)
      }
      return found
    })
  }
}
