/** Creates records. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import {
  createsLua,
  decodeCreated,
  encodeRecordHead,
  HOLDS_NO_KEY,
  pushRecord,
  REFUSED
} from "./lib/creates.ts"
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

/** The answer to a record whose key was claimed. */
export interface ClaimedCreate {
  readonly created: Created
  /** `false`: a record that does not have the key has the id. */
  readonly holdsKey: boolean
}

/** The operations of the script. */
export interface Create {
  /** Creates records whose keys, if they have any, lie in their own shards. */
  readonly inOwnShard: (
    records: ReadonlyArray<NewRecord>
  ) => Effect.Effect<ReadonlyArray<Created>, RedisError>
  /** Creates a record whose key may lie in another shard, under a claim; `undefined`: the claim has a tombstone. */
  readonly withClaimedKey: (
    record: NewRecord,
    claim: string
  ) => Effect.Effect<ClaimedCreate | undefined, RedisError>
}

/** Makes the operations. The process is subscribed to the records that ask for it. */
export const create = ({ clustered, keyspace, run, sharded }: ScriptRunner, process: string): Create => {
  const script = Script.make<ReadonlyArray<string>>(lua(clustered))
  const encodeHead = encodeRecordHead(process)
  return {
    inOwnShard: (records) =>
      sharded(
        records,
        ({ id }) => id,
        (shard, some) =>
          Effect.map(run(script, shard, encodeGroups(some, encodeHead, pushRecord)), (answers) =>
            answers.map(decodeCreated)
          )
      ),
    withClaimedKey: (record, claim) => {
      const push = (args: Array<string>) => pushRecord(args, record, claim)
      return Effect.map(
        run(script, keyspace.shardOf(record.id), encodeGroups([record], encodeHead, push)),
        ([answer = REFUSED]) =>
          answer === REFUSED
            ? undefined
            : { created: decodeCreated(answer), holdsKey: !answer.startsWith(HOLDS_NO_KEY) }
      )
    }
  }
}
