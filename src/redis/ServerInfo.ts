/**
 * What the server is, as far as a store depends on it; looked at once, when the layer is built.
 */
import { Data, Effect } from "effect"
import type * as Redis from "effect/persistence/Redis"
import { CallFailed } from "./fieldDecoding.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"

/** A server that a store can use. */
export interface ServerInfo {
  /** It is one node of a cluster. */
  readonly clustered: boolean
}

/** A server that no store can use. */
export class UnsupportedServer extends Data.TaggedError("UnsupportedServer")<{ readonly reason: string }> {
  override get message(): string {
    return this.reason
  }
}

/** The oldest version that has every command the scripts need. */
const OLDEST = [6, 2] as const

const fieldOf = (info: string, name: string): string | undefined =>
  new RegExp(`^${name}:(.*?)\r?$`, "m").exec(info)?.[1]

const isTooOld = (version: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])
}

/** Looks at the server. One that may evict keys is a loud warning; one that cannot be used is an error. */
export const inspect = (
  redis: Redis.Redis["Service"],
  { bounded }: Pick<ScriptRunner, "bounded">
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
        reason: `the server is a replica, which only reads; connect to its primary (${fieldOf(info, "master_host")}:${fieldOf(info, "master_port")})`
      })
    }
    const policy = fieldOf(info, "maxmemory_policy")
    if (policy !== undefined && policy !== "noeviction") {
      yield* Effect.logWarning(
        `The Redis server's maxmemory-policy is ${policy}: when its memory is full it will delete keys, and with them` +
          " tasks that were accepted, results that somebody waits for, and dead letters. Set it to noeviction."
      )
    }
    return {
      clustered: fieldOf(info, "redis_mode") === "cluster"
    }
  })
