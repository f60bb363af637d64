/**
 * How the server is called: one script for a batch, on the shard where its keys lie, and never for longer than the
 * call may take.
 */
import { createHash } from "node:crypto"
import { Effect, Schedule } from "effect"
import * as Redis from "effect/persistence/Redis"
import type { CallTimeout } from "../internal/driver/callTimeout.ts"
import { wholeMillis } from "../internal/millis.ts"
import { CallFailed } from "./fieldDecoding.ts"
import type { Keyspace } from "./Keyspace.ts"

/** A script that gets the first part of a shard's keys, and texts. */
export interface Script<A> {
  readonly loading: Redis.Script<{ params: [base: string, args: ReadonlyArray<string>]; result: A }>
  /** The name under which a server that knows the script runs it. */
  readonly sha1: string
}

/** A script of its Lua text, with the type of its answer. */
export const script = <A = null>(lua: string): Script<A> => ({
  loading: Redis.script((base: string, args: ReadonlyArray<string>) => [base, ...args], {
    lua,
    numberOfKeys: 1
  }).withReturnType<A>(),
  sha1: createHash("sha1").update(lua).digest("hex")
})

/** An item of a batch, and its place in it. */
interface Placed<A> {
  readonly item: A
  readonly index: number
}

/** Calls of one server, or cluster. */
export interface ScriptRunner {
  readonly keyspace: Keyspace
  /** Fails when the time of a call is up. */
  readonly bounded: CallTimeout<Redis.RedisError>
  readonly run: <A>(
    script: Script<A>,
    shard: number,
    args: ReadonlyArray<string>
  ) => Effect.Effect<A, Redis.RedisError>
  /** Divides a batch among the shards of its items; the answers come back in its order. */
  readonly sharded: <In, Out, E>(
    items: ReadonlyArray<In>,
    idOf: (item: In) => string,
    call: (shard: number, items: ReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
  ) => Effect.Effect<ReadonlyArray<Out>, E>
}

/** The client has no connection, and was told to queue nothing meanwhile: the call was not sent. */
const isOffline = ({ cause }: Redis.RedisError): boolean =>
  cause instanceof Error && cause.message === "The client is offline"
const isUnknownScript = ({ cause }: Redis.RedisError): boolean => String(cause).includes("NOSCRIPT")
const reconnecting = Schedule.spaced("50 millis")

/** Calls that may take no longer than the limit says. */
export const make = (
  redis: Redis.Redis["Service"],
  keyspace: Keyspace,
  bounded: CallTimeout<Redis.RedisError>
): ScriptRunner => {
  const call = <A>({ loading, sha1 }: Script<A>, shard: number, args: ReadonlyArray<string>) => {
    const base = keyspace.base(shard)
    // nearly always the server knows the script, and is spared the service's look whether it was loaded
    const known = Effect.catchIf(redis.send<A>("EVALSHA", sha1, "1", base, ...args), isUnknownScript, () =>
      redis.eval(loading)(base, args)
    )
    const called = Effect.mapError(known, (error) => CallFailed.of(error))
    return Effect.catchIf(called, isOffline, () =>
      Effect.retry(called, { while: isOffline, schedule: reconnecting })
    )
  }
  return {
    keyspace,
    bounded,
    run: (script, shard, args) => bounded(call(script, shard, args)),
    sharded: <In, Out, E>(
      items: ReadonlyArray<In>,
      idOf: (item: In) => string,
      call: (shard: number, items: ReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
    ) => {
      if (keyspace.shards === 1) return call(0, items)
      const groups = new Map<number, Array<Placed<In>>>()
      items.forEach((item, index) => {
        const shard = keyspace.shardOf(idOf(item))
        const group = groups.get(shard)
        if (group === undefined) groups.set(shard, [{ item, index }])
        else group.push({ item, index })
      })
      const answers: Array<Out> = Array.from({ length: items.length })
      return Effect.as(
        Effect.forEach(
          groups,
          ([shard, group]) =>
            Effect.map(
              call(
                shard,
                group.map(({ item }) => item)
              ),
              (found) => group.forEach(({ index }, i) => (answers[index] = found[i]!))
            ),
          { concurrency: "unbounded", discard: true }
        ),
        answers
      )
    }
  }
}

/** Neighbours that have the same head. */
export const groupByHead = <In>(
  items: ReadonlyArray<In>,
  headOf: (item: In) => ReadonlyArray<string>
): ReadonlyArray<{ readonly head: ReadonlyArray<string>; readonly items: ReadonlyArray<In> }> => {
  const groups: Array<{ readonly head: ReadonlyArray<string>; readonly items: Array<In> }> = []
  let last: { readonly head: ReadonlyArray<string>; readonly items: Array<In> } | undefined
  for (const item of items) {
    const head = headOf(item)
    if (last !== undefined && head.every((text, i) => text === last!.head[i])) {
      last.items.push(item)
      continue
    }
    last = { head, items: [item] }
    groups.push(last)
  }
  return groups
}

/** Writes groups of neighbours that have the same head: the head, the size, the items. */
export const encodeGroups = <In>(
  items: ReadonlyArray<In>,
  headOf: (item: In) => ReadonlyArray<string>,
  write: (args: Array<string>, item: In) => void
): ReadonlyArray<string> => {
  const args: Array<string> = []
  for (const { head, items: some } of groupByHead(items, headOf)) {
    args.push(...head, `${some.length}`)
    for (const item of some) write(args, item)
  }
  return args
}

/** A number of milliseconds as scripts take it; `undefined`: none. */
export const millis = (value: number | undefined): string =>
  value === undefined || value === Infinity ? "" : `${wholeMillis(value)}`
