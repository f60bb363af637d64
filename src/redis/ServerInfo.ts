/**
 * The facts of the server that a store depends on, read once when the layer is built.
 */
import { Data, Effect } from "effect"
import type * as Redis from "effect/persistence/Redis"
import type { CallTimeout } from "../internal/driver/callTimeout.ts"
import { CallFailed } from "./RedisStoreError.ts"

/** A server that a store can use. */
export interface ServerInfo {
  /** Whether the server is a node of a cluster. */
  readonly clustered: boolean
}

/** The server cannot be used: it is too old, or a replica. */
export class UnsupportedServer extends Data.TaggedError("UnsupportedServer")<{ readonly reason: string }> {
  override get message(): string {
    return this.reason
  }
}

/** The oldest version that has every command of the scripts. */
const OLDEST = [6, 2] as const

const fieldOf = (info: string, name: string): string | undefined =>
  new RegExp(`^${name}:(.*?)\r?$`, "m").exec(info)?.[1]

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
    const info = yield* bounded(Effect.mapError(redis.send<string>("INFO"), (error) => CallFailed.of(error)))
    const version = fieldOf(info, "redis_version") ?? "unknown"
    if (isTooOld(version)) {
      return yield* new UnsupportedServer({
        reason: `the server is Redis ${version}; ${OLDEST.join(".")} or newer is needed`
      })
    }
    if (fieldOf(info, "role") === "slave") {
      return yield* new UnsupportedServer({
        reason: `the server is a read-only replica; connect to its primary (${fieldOf(info, "master_host")}:${fieldOf(info, "master_port")})`
      })
    }
    const policy = fieldOf(info, "maxmemory_policy")
    if (policy !== undefined && policy !== "noeviction") {
      yield* Effect.logWarning(
        `The Redis server's maxmemory-policy is ${policy}: when its memory is full, it deletes keys, among them` +
          " accepted tasks, awaited results and dead letters. Set it to noeviction."
      )
    }
    return { clustered: fieldOf(info, "redis_mode") === "cluster" }
  })
