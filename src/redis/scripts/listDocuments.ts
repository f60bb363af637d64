/** Lists documents of a kind, in the order of their keys. */
import { Effect } from "effect"
import type { Document, Documents } from "../../BackendDriver.ts"
import { decodeReply } from "../fieldDecoding.ts"
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
export const listDocuments = (runner: ScriptRunner): Documents<RedisStoreError>["list"] => {
  const script = Script.make<ReadonlyArray<string>>(lua)
  return ({ after, kind, limit, prefix = "" }) => {
    // the keys with the prefix follow each other, and the first that can be one of them is the prefix itself
    const from = after === undefined ? `[${prefix}` : `(${after}`
    return Effect.flatMap(runner.run(script, DOCUMENTS_SHARD, [kind, from, `${limit}`]), (answer) =>
      decodeReply(() => {
        const decode = decodeDocument(runner, kind)
        const found: Array<Document> = []
        for (let i = 0; i + 1 < answer.length; i += 2) {
          const key = answer[i]!
          const document = key.startsWith(prefix) ? decode(key, answer[i + 1]) : undefined
          if (document !== undefined) found.push(document)
        }
        return found
      })
    )
  }
}
