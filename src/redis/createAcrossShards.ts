/**
 * Creates records of a store with any number of shards.
 *
 * With one shard a key is reserved in the same step as its record. With several, the key may lie in another shard: it is
 * claimed first, and the record is created only while it holds the key. A caller that finds a key whose record is missing
 * takes the key over, after the id that held it got a tombstone, so that a record that is created late is refused.
 */
import { Effect } from "effect"
import { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../BackendDriver.ts"
import type { Batch } from "../BrokerDriver.ts"
import * as TaskId from "../internal/task/TaskId.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { claimKey } from "./scripts/claimKey.ts"
import { create, type Create } from "./scripts/create.ts"
import { encodeKey } from "./scripts/lib/creates.ts"
import { passKey } from "./scripts/passKey.ts"
import { verifyHolderOrTombstone } from "./scripts/verifyHolderOrTombstone.ts"

/** How often a key that changes hands is tried for. */
const ATTEMPTS = 10

/** Creates one record whose key may lie in another shard. */
const createWithKey = (runner: ScriptRunner, { withKeyInOtherShard }: Create) => {
  const claim = claimKey(runner)
  const pass = passKey(runner)
  const verify = verifyHolderOrTombstone(runner)

  /** `undefined`: the key changed hands meanwhile. */
  const attempt = Effect.fnUntraced(function* (
    record: NewRecord
  ): Effect.fn.Return<Created | undefined, RedisError> {
    const key = encodeKey(record)!
    const holder = yield* claim(key, record.id)
    if (holder === record.id) return yield* withKeyInOtherShard(record)
    if (yield* verify(holder, key)) {
      const incarnation = TaskId.makeIncarnation()
      const created = yield* withKeyInOtherShard({ ...record, id: holder, incarnation })
      // The record was removed between the two calls, so it was created again under the id that holds the key.
      return created?._tag === "Created"
        ? {
            _tag: "Existing",
            id: holder,
            incarnation,
            same: true,
            published: record.reservedMillis === undefined
          }
        : created
    }
    return (yield* pass(key, holder, record.id)) ? yield* withKeyInOtherShard(record) : undefined
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

/** Makes the operation. */
export const createAcrossShards = (
  runner: ScriptRunner
): ((batch: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, RedisError>) => {
  const created = create(runner)
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
