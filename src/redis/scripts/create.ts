/** Creates records. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { createsLua, decodeCreated, encodeRecordHead, pushRecord, REFUSED } from "./lib/creates.ts"
import { recordScript } from "./lib/recordScript.ts"

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    createsLua,
    `
local answers = {}
while position < #ARGV do createGroup(answers) end
sendHints()
return answers
`
  )

/** The operations of the script. */
export interface Create {
  /** Creates records whose keys, if they have any, lie in their own shards. */
  readonly inOwnShard: (
    records: ReadonlyArray<NewRecord>
  ) => Effect.Effect<ReadonlyArray<Created>, RedisError>
  /** Creates a record whose key lies in another shard; `undefined`: its id has a tombstone for that key. */
  readonly withKeyInOtherShard: (record: NewRecord) => Effect.Effect<Created | undefined, RedisError>
}

/** Makes the operations. */
export const create = ({ clustered, keyspace, run, sharded }: ScriptRunner): Create => {
  const script = Script.make<ReadonlyArray<string>>(lua(clustered))
  const encodeOwn = pushRecord(false)
  const encodeOther = pushRecord(true)
  return {
    inOwnShard: (records) =>
      sharded(
        records,
        ({ id }) => id,
        (shard, some) =>
          Effect.map(run(script, shard, encodeGroups(some, encodeRecordHead, encodeOwn)), (answers) =>
            answers.map(decodeCreated)
          )
      ),
    withKeyInOtherShard: (record) =>
      Effect.map(
        run(script, keyspace.shardOf(record.id), encodeGroups([record], encodeRecordHead, encodeOther)),
        ([answer]) => (answer === REFUSED ? undefined : decodeCreated(answer!))
      )
  }
}
