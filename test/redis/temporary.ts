/** Drivers under a unique prefix on the shared server. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { Array as Arr, Effect, Layer, type Scope } from "effect"
import { Redis, type RedisError } from "effect/persistence/Redis"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { sharedUrl } from "./server.ts"

/** Returns a unique prefix. */
export const makePrefix = (): string => `chicory-test-${crypto.randomUUID()}`

/** Returns every key of a prefix. */
export const keysOf = Effect.fnUntraced(function* (
  prefix: string
): Effect.fn.Return<ReadonlyArray<string>, RedisError, Redis> {
  const redis = yield* Redis
  const keys = new Set<string>()
  let cursor = "0"
  do {
    const [next, some] = yield* redis.send<[string, Array<string>]>(
      "SCAN",
      cursor,
      "MATCH",
      `{${prefix}:*`,
      "COUNT",
      "1000"
    )
    for (const key of some) keys.add(key)
    cursor = next
  } while (cursor !== "0")
  return [...keys]
})

/** Removes every key of a prefix. */
export const removeKeys = Effect.fnUntraced(function* (
  prefix: string
): Effect.fn.Return<void, RedisError, Redis> {
  const redis = yield* Redis
  for (const keys of Arr.chunksOf(yield* keysOf(prefix), 1000)) yield* redis.send("UNLINK", ...keys)
})

/** A unique prefix and a client. The keys of the prefix are removed when the scope closes. */
export const temporary = Effect.gen(function* () {
  const prefix = makePrefix()
  const redis = yield* Layer.build(NodeRedis.layer({ url: sharedUrl }))
  yield* Effect.addFinalizer(() => Effect.orDie(Effect.provideContext(removeKeys(prefix), redis)))
  return { prefix, redis }
})

/** Makes a unique prefix, whose keys are removed when the scope closes. */
export const temporaryPrefix: Effect.Effect<string, unknown, Scope.Scope> = Effect.map(
  temporary,
  ({ prefix }) => prefix
)

/** Makes the drivers of one store on the shared server. */
export const temporaryDrivers = Effect.fnUntraced(function* (
  options: RedisStore.Options = {}
): Effect.fn.Return<RedisStore.Drivers, unknown, Scope.Scope> {
  const { prefix, redis } = yield* temporary
  return yield* Effect.provideContext(RedisStore.makeDrivers({ ...options, prefix }), redis)
})
