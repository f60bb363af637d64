/** Sends each command of a cluster to the node of its first key. */
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import type { createCluster } from "redis"

/** The cluster client of the package `redis`. */
export type ClusterClient = ReturnType<typeof createCluster>

/** Wraps what the client throws. */
export const toRedisError = (cause: unknown): Redis.RedisError => new Redis.RedisError({ cause })

/** Runs a call of the client; a rejection becomes a `RedisError`. */
export const callClient = <A>(run: () => Promise<A>): Effect.Effect<A, Redis.RedisError> =>
  Effect.tryPromise({ try: run, catch: toRedisError })

const words = (text: string): ReadonlySet<string> => new Set(text.split(" "))

const KEYLESS = words(
  "ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DISCARD ECHO EXEC FAILOVER " +
    "FLUSHALL FLUSHDB FUNCTION HELLO INFO KEYS LASTSAVE LATENCY LOLWUT MODULE MONITOR MULTI PING PUBLISH PUBSUB " +
    "QUIT RANDOMKEY READONLY READWRITE RESET ROLE SAVE SCAN SCRIPT SELECT SHUTDOWN SLOWLOG SWAPDB TIME UNWATCH " +
    "WAIT WAITAOF"
)
const KEY_IS_SECOND = words("BITOP MEMORY OBJECT XGROUP XINFO")
/** The number of keys comes first, then the keys. */
const KEYS_COUNTED_FIRST = words("LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION")
/** The number of keys comes second, then the keys. */
const KEYS_COUNTED_SECOND = words("BLMPOP BZMPOP EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO")

const countedKey = (args: ReadonlyArray<string>, at: number): string | undefined =>
  args[at] === "0" ? undefined : args[at + 1]

const firstKeyOf = (command: string, args: ReadonlyArray<string>): string | undefined => {
  if (KEYLESS.has(command)) return undefined
  if (KEYS_COUNTED_SECOND.has(command)) return countedKey(args, 1)
  if (KEYS_COUNTED_FIRST.has(command)) return countedKey(args, 0)
  if (KEY_IS_SECOND.has(command)) return args[1]
  if (command === "XREAD" || command === "XREADGROUP") {
    const streams = args.findIndex((arg) => arg.toUpperCase() === "STREAMS")
    return streams === -1 ? undefined : args[streams + 1]
  }
  return args[0]
}

/** Returns a random master among the connected ones, or among all if none is connected. */
export const anyMaster = (client: ClusterClient): ClusterClient["masters"][number] => {
  const ready = client.masters.filter((node) => node.client?.isReady === true)
  const nodes = ready.length > 0 ? ready : client.masters
  const node = nodes[Math.floor(Math.random() * nodes.length)]
  if (node === undefined) throw new Error("The cluster client is closed")
  return node
}

/**
 * Loads a script on all masters, and succeeds with the first: a master that is down does not keep scripts from the
 * others. Commands to a node keep their order, so a script is loaded there before it is run; where the load failed,
 * NOSCRIPT repeats it.
 */
const loadScript = async (client: ClusterClient, command: ReadonlyArray<string>): Promise<unknown> => {
  const loads = client.masters.map(async (node) => (await client.nodeClient(node)).sendCommand(command))
  return Promise.any(loads).catch((cause: AggregateError) => Promise.reject(cause.errors[0] ?? cause))
}

const route = async (
  client: ClusterClient,
  command: string,
  args: ReadonlyArray<string>
): Promise<unknown> => {
  const name = command.toUpperCase()
  if (name === "SCRIPT" && args[0]?.toUpperCase() === "LOAD") return loadScript(client, [command, ...args])
  const key = firstKeyOf(name, args)
  return key === undefined
    ? (await client.nodeClient(anyMaster(client))).sendCommand([command, ...args])
    : client.sendCommand(key, undefined, [command, ...args])
}

/** Returns the `send` of the `Redis` service over a cluster client. */
export const sendWith =
  (client: ClusterClient): Redis.Redis["Service"]["send"] =>
  <A>(command: string, ...args: ReadonlyArray<string>) =>
    callClient(() => route(client, command, args) as Promise<A>)
