/** Compares a new record with the one that holds its idempotency key, or sees to it that no record ever holds it so. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import type { KeyHolder } from "../KeyHolder.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { createsLua, decodeCreated, encodeRecordHead, pushRecord, REFUSED } from "./lib/creates.ts"
import { recordScript } from "./lib/recordScript.ts"

/** How long a tombstone stays: longer than a call may take. */
const TOMBSTONE_MILLIS = 600_000

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    createsLua,
    `
local claim, id = nextText(), nextText()
local request, isCompared = readGroup()
readRequest(request, isCompared)
local record = findRecord(id)
if holdsKey(record, request.key, claim) then return 'E' .. compare(record, request) end
redis.call('SET', base .. ':burned:' .. claim, '1', 'PX', ${TOMBSTONE_MILLIS})
return '${REFUSED}'
`
  )

/**
 * Makes the operation, which returns the answer to a record whose key has that holder. `undefined`: the holder's record does
 * not have the key (it is gone, or was not created yet). Then its claim gets a tombstone: `create` refuses the claim from
 * then on.
 */
export const compareWithHolder = ({ clustered, keyspace, run }: ScriptRunner) => {
  const script = Script.make<string>(lua(clustered))
  const encodeHead = encodeRecordHead("")
  return (record: NewRecord, { claim, id }: KeyHolder): Effect.Effect<Created | undefined, RedisError> =>
    Effect.map(
      run(script, keyspace.shardOf(id), [claim, id, ...encodeGroups([record], encodeHead, pushRecord)]),
      (answer) => (answer === REFUSED ? undefined : decodeCreated(answer))
    )
}
