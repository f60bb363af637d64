/** Finds the position of a dead letter in the order of all. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import { taskIdOfDeadLetter } from "../Keyspace.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"

/** A position in the order of dead letters, which is the same in every shard: the score and member of the index. */
export interface DeadLetterPosition {
  readonly at: string
  readonly member: string
}

const lua = /* lua */ `
local member = redis.call('HGET', KEYS[1] .. ':letter:' .. ARGV[1], 'member')
return { member and redis.call('ZSCORE', KEYS[1] .. ':letters', member), member }
`

/** Makes the operation; `undefined`: there is no such dead letter. */
export const deadLetterPosition = ({ keyspace, run }: ScriptRunner) => {
  const script = Script.make<readonly [at: string | null, member: string | null]>(lua)
  return (id: string): Effect.Effect<DeadLetterPosition | undefined, RedisError> =>
    Effect.map(run(script, keyspace.shardOf(taskIdOfDeadLetter(id)), [id]), ([at, member]) =>
      at === null || member === null ? undefined : { at, member }
    )
}
