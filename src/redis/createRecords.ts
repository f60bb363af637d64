/**
 * Creating records. With one shard a key is reserved in the same step. With several it may lie in another shard than
 * its record: it is claimed first, and the record is made only while it holds the key.
 */
import { Array as Arr, Effect } from "effect"
import { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../BackendDriver.ts"
import type { Batch } from "../BrokerDriver.ts"
import * as Record from "./RecordText.ts"
import { type ScriptRunner, encodeGroups, millis, script } from "./ScriptRunner.ts"
import * as creating from "./scripts/create.ts"

/** The name of a key: its task's name comes first, and its length keeps apart what reads the same when joined. */
const scoped = ({ key, task }: NewRecord): string | undefined =>
  key === undefined ? undefined : Record.encode(`${task.length}:${task}${key}`)

/** How often a key that changes hands is tried for. */
const ATTEMPTS = 10

const claimKey = script<string>(creating.claimKey)
const passKey = script<number>(creating.passKey)
const freeKeys = script(creating.freeKeys)

/** Without a key or an id of the caller's there is nothing to compare. */
const isReserved = ({ key, payloadHash }: NewRecord): boolean => key !== undefined || payloadHash !== ""

/** What a record may have in common with others. */
export const headOf = (record: NewRecord): ReadonlyArray<string> => [
  Record.encode(record.task),
  millis(record.expiresMillis),
  millis(record.retentionMillis),
  record.published ? "1" : "0",
  isReserved(record) ? "1" : "0"
]

/** Writes the rest of it. */
export const writeRecord =
  (foreign: boolean) =>
  (args: Array<string>, record: NewRecord): void => {
    args.push(record.id)
    if (!isReserved(record)) return
    args.push(record.payloadHash, scoped(record) ?? "", foreign ? "1" : "")
  }

const writeRecords = (records: ReadonlyArray<NewRecord>, foreign = false): ReadonlyArray<string> =>
  encodeGroups(records, headOf, writeRecord(foreign))

/** The answer to a record that was created, or found. */
export const readCreated = (answer: string): Created =>
  answer === "C"
    ? { _tag: "Created" }
    : { _tag: "Existing", id: answer.slice(3), same: answer[1] === "1", published: answer[2] === "1" }

/** The operations. */
export interface Creating {
  readonly create: (batch: Batch<NewRecord>) => Effect.Effect<ReadonlyArray<Created>, RedisError>
  /** Frees keys that lie in any shard: each by its name, and the id that held it. */
  readonly free: (names: ReadonlyArray<string>) => Effect.Effect<void, RedisError>
  /** Whether the key of a record may lie in another shard. */
  readonly isForeign: (record: NewRecord) => boolean
}

/** Over one keyspace. */
export const make = ({ keyspace, run, sharded }: ScriptRunner, clustered: boolean): Creating => {
  const create = script<ReadonlyArray<string>>(creating.create(clustered))
  const lookUpOrBurn = script<number>(creating.lookUpOrBurn(clustered))

  const isForeign = (record: NewRecord): boolean => keyspace.shards > 1 && record.key !== undefined

  const createHere = (records: ReadonlyArray<NewRecord>) =>
    sharded(
      records,
      (record) => record.id,
      (shard, some) => Effect.map(run(create, shard, writeRecords(some)), (found) => found.map(readCreated))
    )

  /** One whose key may lie elsewhere. Whoever holds the key without a record under it loses it. */
  const createForeign = (record: NewRecord): Effect.Effect<Created, RedisError> => {
    const key = scoped(record)!
    const keyShard = keyspace.shardOf(key)
    const make = Effect.map(
      run(create, keyspace.shardOf(record.id), writeRecords([record], true)),
      ([answer]) => (answer === "X" ? undefined : readCreated(answer!))
    )
    const find = (holder: string) =>
      run(create, keyspace.shardOf(holder), writeRecords([{ ...record, id: holder }], true))
    const attempt: Effect.Effect<Created | undefined, RedisError> = Effect.gen(function* () {
      const holder = yield* run(claimKey, keyShard, [key, record.id])
      if (holder === record.id) return yield* make
      if ((yield* run(lookUpOrBurn, keyspace.shardOf(holder), [holder, key])) === 1) {
        const [answer] = yield* find(holder)
        const created = answer === "X" ? undefined : readCreated(answer!)
        // it went between the two looks, and was made anew: under its old id, which holds the key
        return created?._tag === "Created"
          ? { _tag: "Existing", id: holder, same: true, published: record.published }
          : created
      }
      return (yield* run(passKey, keyShard, [key, holder, record.id])) === 1 ? yield* make : undefined
    })
    return attempt.pipe(
      Effect.repeat({ times: ATTEMPTS - 1, until: (created) => created !== undefined }),
      Effect.flatMap((created) =>
        created === undefined
          ? Effect.fail(new RedisError({ cause: new Error("an idempotency key kept changing hands") }))
          : Effect.succeed(created)
      )
    )
  }

  /** Those with the same key one after the other, so that the first of them gets it. */
  const createAnywhere = Effect.fnUntraced(function* (batch: Batch<NewRecord>) {
    const answers = new Map<NewRecord, Created>()
    const plain = batch.filter((record) => !isForeign(record))
    const created = plain.length === 0 ? [] : yield* createHere(plain)
    plain.forEach((record, i) => answers.set(record, created[i]!))
    yield* Effect.forEach(
      Map.groupBy(batch.filter(isForeign), scoped),
      ([, group]) =>
        Effect.forEach(group, (record) =>
          Effect.map(createForeign(record), (answer) => answers.set(record, answer))
        ),
      { concurrency: 16, discard: true }
    )
    return batch.map((record) => answers.get(record)!)
  })

  return {
    isForeign,
    create: (batch) => (batch.some(isForeign) ? createAnywhere(batch) : createHere(batch)),
    free: (names) => {
      const pairs = Arr.chunksOf(names, 2).map(([name, id]) => [name, id ?? ""] as const)
      return Effect.forEach(pairs, ([name, id]) => run(freeKeys, keyspace.shardOf(name), [name, id]), {
        concurrency: 16,
        discard: true
      })
    }
  }
}
