/** Reads the bytes of messages whose text was mangled on the way. */
import type { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { ClaimHandle } from "../ClaimHandle.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { preludeLua } from "./lib/prelude.ts"
import { queuesLua } from "./lib/queues.ts"

/** Returns bytes in hexadecimal: the client decodes replies as UTF-8, which loses other bytes. */
const lua = `${preludeLua}${queuesLua}
local answers = {}
while position < #ARGV do
  local queue, member = nextText(), nextText()
  local value = redis.call('HGET', queueKey(queue, 'texts'), numberOf(member)) or ''
  answers[#answers + 1] = string.gsub(value, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
end
return answers
`

/** Makes the operation for messages of one shard; returns their texts in hexadecimal. */
export const messageBytes = ({ run }: ScriptRunner) => {
  const script = Script.make<ReadonlyArray<string>>(lua)
  return (
    shard: number,
    handles: ReadonlyArray<ClaimHandle>
  ): Effect.Effect<ReadonlyArray<string>, RedisError> =>
    run(
      script,
      shard,
      handles.flatMap(({ member, queue }) => [queue, member])
    )
}
