/**
 * Creates records of a store with any number of shards.
 *
 * With one shard a key is reserved in the same step as its record. With several, the key may lie in another shard: it is
 * claimed first, and the record is created only under a claim that still holds the key. A caller that finds a key whose
 * holder has no such record takes the key over, after the claim that held it got a tombstone, so that a record that is
 * created late under it is refused.
 */
import { Effect } from "effect"
import { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../BackendDriver.ts"
import type { Batch } from "../BrokerDriver.ts"
import * as KeyHolder from "./KeyHolder.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { claimKey } from "./scripts/claimKey.ts"
import { compareWithHolder } from "./scripts/compareWithHolder.ts"
import { create, type Create } from "./scripts/create.ts"
import { freeKeys } from "./scripts/freeKeys.ts"
import { encodeKey } from "./scripts/lib/creates.ts"
import { passKey } from "./scripts/passKey.ts"

/** How often a key that changes hands is tried for. */
const ATTEMPTS = 10

/** Creates one record whose key may lie in another shard. */
const createWithKey = (runner: ScriptRunner, { withClaimedKey }: Create) => {
  const claimFor = claimKey(runner)
  const compare = compareWithHolder(runner)
  const pass = passKey(runner)
  const free = freeKeys(runner)

  /** `undefined`: the key changed hands meanwhile. */
  const attempt = Effect.fnUntraced(function* (
    record: NewRecord
  ): Effect.fn.Return<Created | undefined, RedisError> {
    const key = encodeKey(record)!
    const claim = KeyHolder.makeClaim()
    const holder = KeyHolder.encode({ claim, id: record.id })
    const found = yield* claimFor(key, holder)
    if (found !== holder) {
      const other = KeyHolder.decode(found)
      const existing = other === undefined ? undefined : yield* compare(record, other)
      if (existing !== undefined) return existing
      if (!(yield* pass(key, found, holder))) return undefined
    }
    const answer = yield* withClaimedKey(record, claim)
    if (answer?.holdsKey === false) yield* free([key, holder])
    return answer?.created
  })

  return (record: NewRecord): Effect.Effect<Created, RedisError> =>
    attempt(record).pipe(
      Effect.repeat({ times: ATTEMPTS - 1, until: (created) => created !== undefined }),
      Effect.flatMap((created) =>
        created === undefined
          ? Effect.fail(new RedisError({ cause: new Error("an idempotency key kept changing hands") }))
          : Effect.succeed(created)
      )
    )
}

const hasKey = ({ key }: NewRecord): boolean => key !== undefined

/** Makes the operation for a process. */
export const createAcrossShards = (
  runner: ScriptRunner,
  process: string
): ((batch: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, RedisError>) => {
  const created = create(runner, process)
  if (runner.keyspace.shards === 1) return created.inOwnShard
  const createKeyed = createWithKey(runner, created)

  const createMixed = Effect.fnUntraced(function* (batch: Batch<NewRecord>) {
    const answers = new Map<NewRecord, Created>()
    const plain = batch.filter((record) => !hasKey(record))
    const found = plain.length === 0 ? [] : yield* created.inOwnShard(plain)
    plain.forEach((record, i) => answers.set(record, found[i]!))
    // Records with the same key are created one after the other, so that the first of them gets it.
    yield* Effect.forEach(
      Map.groupBy(batch.filter(hasKey), encodeKey),
      ([, group]) =>
        Effect.forEach(group, (record) =>
          Effect.map(createKeyed(record), (answer) => answers.set(record, answer))
        ),
      { concurrency: 16, discard: true }
    )
    return batch.map((record) => answers.get(record)!)
  })

  return (batch) => (batch.some(hasKey) ? createMixed(batch) : created.inOwnShard(batch))
}
