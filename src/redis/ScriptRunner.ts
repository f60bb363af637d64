/**
 * Runs scripts: one script for a batch, on the shard where its keys lie, bounded by `callTimeout`.
 */
import { Array as Arr, Effect, Schedule, type Scope } from "effect"
import type * as Redis from "effect/persistence/Redis"
import type { CallTimeout } from "../internal/driver/callTimeout.ts"
import { ENVELOPE_BYTES } from "../internal/driver/maxMessageBytes.ts"
import { makeOnceAMinute } from "../internal/driver/onceAMinute.ts"
import { isReadOnly } from "./isPermanent.ts"
import type { Keyspace } from "./Keyspace.ts"
import * as Reconnection from "./Reconnection.ts"
import { CallFailed, CallTimedOut, explainDenial, explainTooLarge } from "./RedisStoreError.ts"
import type { Script } from "./Script.ts"
import type { ServerInfo } from "./ServerInfo.ts"
import * as StallGuard from "./StallGuard.ts"

/** Runs scripts of one store on its server or cluster. */
export interface ScriptRunner {
  readonly keyspace: Keyspace
  /** Whether the server is a node of a cluster; the text of some scripts depends on it. */
  readonly clustered: boolean
  /** The most bytes of one encoded value; `undefined`: not known. */
  readonly maxBytes: number | undefined
  /** Fails a call that takes longer than `callTimeout`. */
  readonly bounded: CallTimeout<Redis.RedisError>
  /** Waits until the store leaves its server for another one behind the same address. */
  readonly untilReconnect: Effect.Effect<void>
  readonly run: <A>(
    script: Script<A>,
    shard: number,
    args: ReadonlyArray<string>
  ) => Effect.Effect<A, Redis.RedisError>
  /** Divides a batch among the shards of its items; the answers come back in the order of the items. */
  readonly sharded: <In, Out, E>(
    items: ReadonlyArray<In>,
    idOf: (item: In) => string,
    call: (shard: number, items: ReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
  ) => Effect.Effect<ReadonlyArray<Out>, E>
  /** Calls every shard at once; the answers come back in the order of the shards. */
  readonly everyShard: <Out, E>(
    call: (shard: number) => Effect.Effect<Out, E>
  ) => Effect.Effect<ReadonlyArray<Out>, E>
}

/** An item of a batch, and its index there. */
interface Indexed<A> {
  readonly item: A
  readonly index: number
}

/** The client has no connection and queues nothing meanwhile, so the call was not sent. */
const isOffline = ({ cause }: Redis.RedisError): boolean =>
  cause instanceof Error && cause.message === "The client is offline"
/** The slot of the shard moves to another node of the cluster, so the script was not run: see `Script`. */
const isMoving = ({ cause }: Redis.RedisError): boolean =>
  cause instanceof Error && /^(?:TRYAGAIN|ASK)\b/.test(cause.message)
const isUnknownScript = ({ cause }: Redis.RedisError): boolean => String(cause).includes("NOSCRIPT")
const isNotRun = (error: Redis.RedisError): boolean => isOffline(error) || isMoving(error)
const NOT_RUN_RETRY = Schedule.spaced("50 millis")

/** Makes the log of calls that wait for a slot. */
const makeLogMove = () => {
  const isNews = makeOnceAMinute()
  return (base: string): Effect.Effect<void> =>
    Effect.flatMap(isNews, (isNews) =>
      (isNews ? Effect.logWarning : Effect.logDebug)(
        `The hash slot of ${base} moves to another node of the Redis cluster; calls wait for it`
      )
    )
}

const runWith = (
  redis: Redis.Redis["Service"],
  { declaredKeys, prefix }: Keyspace,
  maxArgumentBytes: number | undefined
) => {
  const logMove = makeLogMove()
  const explain = explainDenial(prefix)
  const explainSize = explainTooLarge(maxArgumentBytes)
  return function run<A>({ loading, sha1 }: Script<A>, shard: number, args: ReadonlyArray<string>) {
    const [base, second] = declaredKeys(shard)
    // The server nearly always knows the script. EVAL loads and runs it in one step: a script that is loaded first may be
    // flushed again before it is run.
    const known = Effect.catchIf(
      redis.send<A>("EVALSHA", sha1, "2", base, second, ...args),
      isUnknownScript,
      () => redis.send<A>("EVAL", loading.lua, "2", base, second, ...args)
    )
    const called = Effect.mapError(known, (error) => explainSize(explain(CallFailed.of(error)), args))
    return Effect.catchIf(called, isNotRun, (error) =>
      Effect.andThen(
        isMoving(error) ? logMove(base) : Effect.void,
        Effect.retry(called, { while: isNotRun, schedule: NOT_RUN_RETRY })
      )
    )
  }
}

const divide = <In>(
  { shardOf }: Keyspace,
  items: ReadonlyArray<In>,
  idOf: (item: In) => string
): Map<number, Array<Indexed<In>>> => {
  const groups = new Map<number, Array<Indexed<In>>>()
  items.forEach((item, index) => {
    const shard = shardOf(idOf(item))
    const group = groups.get(shard)
    if (group === undefined) groups.set(shard, [{ item, index }])
    else group.push({ item, index })
  })
  return groups
}

/** Makes the runner of a store. */
export const make = Effect.fnUntraced(function* (
  redis: Redis.Redis["Service"],
  keyspace: Keyspace,
  bounded: CallTimeout<Redis.RedisError>,
  { clustered, maxArgumentBytes }: ServerInfo
): Effect.fn.Return<ScriptRunner, never, Scope.Scope> {
  const run = runWith(redis, keyspace, maxArgumentBytes)
  const shards = Arr.range(0, keyspace.shards - 1)
  const guards = yield* Effect.forEach(shards, (shard) =>
    StallGuard.make(redis.send("EXISTS", keyspace.base(shard)))
  )
  const reconnection = yield* Reconnection.make(redis)
  const onError = (shard: number) => (error: Redis.RedisError) => {
    if (error instanceof CallTimedOut) return guards[shard]!.onTimeout
    return !clustered && isReadOnly(error) ? reconnection.reconnect : Effect.void
  }
  return {
    keyspace,
    clustered,
    maxBytes: maxArgumentBytes === undefined ? undefined : Math.max(0, maxArgumentBytes - ENVELOPE_BYTES),
    bounded,
    untilReconnect: reconnection.untilReconnect,
    run: (script, shard, args) =>
      Effect.tapError(bounded(guards[shard]!.guard(run(script, shard, args))), onError(shard)),
    sharded: <In, Out, E>(
      items: ReadonlyArray<In>,
      idOf: (item: In) => string,
      call: (shard: number, items: ReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
    ) => {
      if (keyspace.shards === 1) return call(0, items)
      const answers: Array<Out> = Array.from({ length: items.length })
      const callShard = (shard: number, group: ReadonlyArray<Indexed<In>>) =>
        Effect.map(
          call(
            shard,
            group.map(({ item }) => item)
          ),
          (some) => group.forEach(({ index }, i) => (answers[index] = some[i]!))
        )
      return Effect.as(
        Effect.forEach(divide(keyspace, items, idOf), ([shard, group]) => callShard(shard, group), {
          concurrency: "unbounded",
          discard: true
        }),
        answers
      )
    },
    everyShard: (call) => Effect.forEach(shards, call, { concurrency: "unbounded" })
  }
})
