/** Verifies that a record holds an idempotency key, or sees to it that it never will. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { recordScript } from "./lib/recordScript.ts"

/** How long a tombstone stays: longer than a call may take. */
const TOMBSTONE_MILLIS = 600_000

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    `
local id, key = nextText(), nextText()
local record = findRecord(id)
if record and record[KEY_IN_OTHER_SHARD] ~= '-' and record[KEY] == key then return 1 end
redis.call('SET', base .. ':burned:' .. id, key, 'PX', ${TOMBSTONE_MILLIS})
return 0
`
  )

/**
 * Makes the operation, which returns whether the record of the id holds the key. Where it does not (it is gone, or was
 * not created yet), the id gets a tombstone for the key: `create` refuses the id under that key from then on.
 */
export const verifyHolderOrTombstone = ({ clustered, keyspace, run }: ScriptRunner) => {
  const script = Script.make<number>(lua(clustered))
  return (id: string, key: string): Effect.Effect<boolean, RedisError> =>
    Effect.map(run(script, keyspace.shardOf(id), [id, key]), (holds) => holds === 1)
}
