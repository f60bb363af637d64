/**
 * The facts of the server that a store depends on, read once when the layer is built.
 *
 * INFO has all of them. A user with few permissions may not run it; then HELLO, which a client may always run unless
 * that was forbidden too, has all but the eviction policy and the address of a replica's primary. The limit on an
 * argument is in CONFIG alone; where that is refused, it is not known.
 */
import { Array as Arr, Data, Effect } from "effect"
import type * as Redis from "effect/persistence/Redis"
import type { CallTimeout } from "../internal/driver/callTimeout.ts"
import { CallFailed } from "./RedisStoreError.ts"

/** A server that a store can use. */
export interface ServerInfo {
  /** Whether the server is a node of a cluster. */
  readonly clustered: boolean
  /** `proto-max-bulk-len`: the most bytes of one argument; `undefined`: not known. */
  readonly maxArgumentBytes: number | undefined
}

/** The server cannot be used: it is too old, or a replica. */
export class UnsupportedServer extends Data.TaggedError("UnsupportedServer")<{ readonly reason: string }> {
  override get message(): string {
    return this.reason
  }
}

/** The oldest version that has every command of the scripts. */
const OLDEST = [6, 2] as const

/** What is known of a server; nothing of it is certain to be known. */
interface Facts {
  readonly version?: string | undefined
  readonly isReplica: boolean
  /** The address of the primary of a replica. */
  readonly primary?: string | undefined
  readonly clustered: boolean
  readonly evictionPolicy?: string | undefined
}

const fromInfo = (info: string): Facts => {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\r?$`, "m").exec(info)?.[1]
  return {
    version: field("redis_version"),
    isReplica: field("role") === "slave",
    primary: `${field("master_host")}:${field("master_port")}`,
    clustered: field("redis_mode") === "cluster",
    evictionPolicy: field("maxmemory_policy")
  }
}

/** Clients return the fields of HELLO and CONFIG as a list of names and values, or as a map or an object. */
const fieldsOf = (reply: unknown): ReadonlyMap<unknown, unknown> =>
  new Map<unknown, unknown>(
    Array.isArray(reply)
      ? Arr.chunksOf(reply, 2).map(([name, value]) => [name, value] as const)
      : reply instanceof Map
        ? reply
        : typeof reply === "object" && reply !== null
          ? Object.entries(reply)
          : []
  )

const fromHello = (reply: unknown): Facts => {
  const fields = fieldsOf(reply)
  const version = fields.get("version")
  return {
    version: typeof version === "string" ? version : undefined,
    isReplica: fields.get("role") === "replica",
    clustered: fields.get("mode") === "cluster"
  }
}

/** Whether the user may not run a command, or the server has it under another name. */
const isRefused = ({ message }: CallFailed): boolean => /^NOPERM\b|^(?:ERR )?unknown command/i.test(message)

const readFacts = (
  redis: Redis.Redis["Service"],
  bounded: CallTimeout<Redis.RedisError>
): Effect.Effect<Facts, Redis.RedisError> => {
  const ask = <A>(command: string) =>
    Effect.mapError(
      bounded(Effect.mapError(redis.send<A>(command), (error) => CallFailed.of(error))),
      (error) => CallFailed.of(error)
    )
  const hello = Effect.map(ask<unknown>("HELLO"), fromHello).pipe(
    Effect.tap(() =>
      Effect.logInfo(
        "The Redis server's maxmemory-policy is not checked, since its user may not run INFO; it has to be noeviction."
      )
    ),
    Effect.catchIf(isRefused, () =>
      Effect.as(
        Effect.logWarning(
          "The Redis server is not checked, since its user may run neither INFO nor HELLO. It has to be Redis" +
            ` ${OLDEST.join(".")} or newer, no replica, and no node of a cluster, with maxmemory-policy noeviction.`
        ),
        { isReplica: false, clustered: false }
      )
    )
  )
  return Effect.map(ask<string>("INFO"), fromInfo).pipe(Effect.catchIf(isRefused, () => hello))
}

const MAX_ARGUMENT = "proto-max-bulk-len"

/** Reads the limit on an argument. A server that does not tell it, for whatever reason, has none that is known. */
const readMaxArgumentBytes = (
  redis: Redis.Redis["Service"],
  bounded: CallTimeout<Redis.RedisError>
): Effect.Effect<number | undefined> =>
  bounded(redis.send<unknown>("CONFIG", "GET", MAX_ARGUMENT)).pipe(
    Effect.map((reply) => {
      const bytes = Number(fieldsOf(reply).get(MAX_ARGUMENT))
      return bytes > 0 ? bytes : undefined
    }),
    Effect.orElseSucceed(() => undefined)
  )

const isTooOld = (version: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])
}

/**
 * Reads the facts of the server. Fails with `UnsupportedServer` for one that is too old or a replica, and logs a warning
 * for one that may evict keys.
 */
export const inspect = (
  redis: Redis.Redis["Service"],
  bounded: CallTimeout<Redis.RedisError>
): Effect.Effect<ServerInfo, Redis.RedisError | UnsupportedServer> =>
  Effect.gen(function* () {
    const { clustered, evictionPolicy, isReplica, primary, version } = yield* readFacts(redis, bounded)
    if (version !== undefined && isTooOld(version)) {
      return yield* new UnsupportedServer({
        reason: `the server is Redis ${version}; ${OLDEST.join(".")} or newer is needed`
      })
    }
    if (isReplica) {
      return yield* new UnsupportedServer({
        reason: `the server is a read-only replica; connect to its primary${primary === undefined ? "" : ` (${primary})`}`
      })
    }
    if (evictionPolicy !== undefined && evictionPolicy !== "noeviction") {
      yield* Effect.logWarning(
        `The Redis server's maxmemory-policy is ${evictionPolicy}: when its memory is full, it deletes keys, among them` +
          " accepted tasks, awaited results and dead letters. Set it to noeviction."
      )
    }
    return { clustered, maxArgumentBytes: yield* readMaxArgumentBytes(redis, bounded) }
  })
