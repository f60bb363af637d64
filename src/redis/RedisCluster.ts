/**
 * Effect's `Redis` service over a Redis Cluster, by the cluster client of the package `redis` (5 or 6), which is
 * loaded when the layer is built and has to be installed: `npm install redis`.
 *
 * ```ts
 * import { Layer } from "effect"
 * import { RedisCluster, RedisStore } from "chicory/redis"
 *
 * const cluster = RedisCluster.layer({
 *   rootNodes: [{ url: "redis://10.0.0.1:6379" }, { url: "redis://10.0.0.2:6379" }],
 *   // `rootNodes` only lead to the cluster: what every connection needs is said here
 *   defaults: { password: "secret" }
 * })
 *
 * const store = RedisStore.layer().pipe(Layer.provide(cluster))
 * ```
 */
import { Deferred, Effect, Exit, Fiber, Layer, Schedule, Scope } from "effect"
import { Redis } from "effect/persistence"
import type {
  createCluster,
  RedisClusterOptions,
  RedisFunctions,
  RedisModules,
  RedisScripts,
  RespVersions,
  TypeMapping
} from "redis"

/**
 * The options of `createCluster` of the package `redis`, and those of the connections behind `Redis.reserve`.
 *
 * `defaults.socket.reconnectStrategy` has another default: the layer fails if a master cannot be reached at the
 * start, and from then on lost connections are made again, for as long as it takes (50 milliseconds at first, 2
 * seconds at most). One of your own decides both. With `minimizeConnections` no master is tried at the start.
 *
 * With `useReplicas`, commands that only read may be answered by a replica, which may be behind (`redis` 6; with 5
 * the masters answer). Scripts run on masters.
 */
export interface Options
  extends
    RedisClusterOptions<RedisModules, RedisFunctions, RedisScripts, RespVersions, TypeMapping>,
    Redis.PoolOptions {}

type CreateCluster = typeof createCluster
type Client = ReturnType<CreateCluster>
type Send = Redis.Redis["Service"]["send"]

const failed = (cause: unknown): Redis.RedisError => new Redis.RedisError({ cause })

const said = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const attempt = <A>(run: () => Promise<A>): Effect.Effect<A, Redis.RedisError> =>
  Effect.tryPromise({ try: run, catch: failed })

const load: Effect.Effect<CreateCluster, Redis.RedisError> = Effect.tryPromise({
  try: async () => (await import("redis")).createCluster,
  catch: (cause) =>
    failed(new Error("RedisCluster needs the package `redis`: run `npm install redis`", { cause }))
})

// #region Routing

const words = (text: string): ReadonlySet<string> => new Set(text.split(" "))

const KEYLESS = words(
  "ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DISCARD ECHO EXEC FAILOVER " +
    "FLUSHALL FLUSHDB FUNCTION HELLO INFO KEYS LASTSAVE LATENCY LOLWUT MODULE MONITOR MULTI PING PUBLISH PUBSUB " +
    "QUIT RANDOMKEY READONLY READWRITE RESET ROLE SAVE SCAN SCRIPT SELECT SHUTDOWN SLOWLOG SWAPDB TIME UNWATCH " +
    "WAIT WAITAOF"
)
const SECOND = words("BITOP MEMORY OBJECT XGROUP XINFO")
/** The number of keys, then the keys. */
const COUNTED_FIRST = words("LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION")
const COUNTED_SECOND = words("BLMPOP BZMPOP EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO")

const counted = (args: ReadonlyArray<string>, at: number): string | undefined =>
  args[at] === "0" ? undefined : args[at + 1]

const keyOf = (name: string, args: ReadonlyArray<string>): string | undefined => {
  if (KEYLESS.has(name)) return undefined
  if (COUNTED_SECOND.has(name)) return counted(args, 1)
  if (COUNTED_FIRST.has(name)) return counted(args, 0)
  if (SECOND.has(name)) return args[1]
  if (name === "XREAD" || name === "XREADGROUP") {
    const streams = args.findIndex((arg) => arg.toUpperCase() === "STREAMS")
    return streams === -1 ? undefined : args[streams + 1]
  }
  return args[0]
}

/** Any master, and one that answers if there is one. */
const anyMaster = (client: Client): Client["masters"][number] => {
  const ready = client.masters.filter((node) => node.client?.isReady === true)
  const nodes = ready.length > 0 ? ready : client.masters
  const node = nodes[Math.floor(Math.random() * nodes.length)]
  if (node === undefined) throw new Error("The cluster client is closed")
  return node
}

/**
 * One master is enough for a script to count as loaded, or one that is down would keep scripts from the others.
 * Commands to a node keep their order: where this one arrives, it comes before the script is run; and where it does
 * not, NOSCRIPT brings it again.
 */
const loadScript = async (client: Client, command: ReadonlyArray<string>): Promise<unknown> => {
  const loads = client.masters.map(async (node) => (await client.nodeClient(node)).sendCommand(command))
  return Promise.any(loads).catch((cause: AggregateError) => Promise.reject(cause.errors[0] ?? cause))
}

const route = async (client: Client, command: string, args: ReadonlyArray<string>): Promise<unknown> => {
  const name = command.toUpperCase()
  if (name === "SCRIPT" && args[0]?.toUpperCase() === "LOAD") return loadScript(client, [command, ...args])
  const key = keyOf(name, args)
  return key === undefined
    ? (await client.nodeClient(anyMaster(client))).sendCommand([command, ...args])
    : client.sendCommand(key, undefined, [command, ...args])
}

const sendWith =
  (client: Client): Send =>
  <A>(command: string, ...args: ReadonlyArray<string>) =>
    attempt(() => route(client, command, args) as Promise<A>)

// #endregion

// #region Connecting

const reconnectDelay = (retries: number): number =>
  Math.min(2 ** retries * 50, 2000) + Math.floor(Math.random() * 200)

interface Destroyable {
  readonly destroy: () => void
}

/** Destroyed and not closed: a close waits for commands to nodes that may never come back. */
const destroy = (connection: Destroyable): void => {
  try {
    connection.destroy()
  } catch {
    // version 5 throws where a connection has ended before
  }
}

/** Destroys the client, and whatever connects to its nodes later, as a connection that is being made is not ended. */
const close = (client: Client): void => {
  const nodes = new Set<Destroyable>()
  const closeNodes = (): void => {
    for (const { client: node } of [...client.masters, ...client.replicas])
      if (node !== undefined) nodes.add(node)
    nodes.forEach(destroy)
    destroy(client)
  }
  client.on("node-connect", closeNodes).on("node-error", closeNodes)
  closeNodes()
}

/** A connected client, which is closed with the scope. */
const connect = Effect.fnUntraced(function* (
  create: CreateCluster,
  options: Omit<Options, keyof Redis.PoolOptions>
): Effect.fn.Return<Client, Redis.RedisError, Scope.Scope> {
  const runSync = Effect.runSyncWith(yield* Effect.context<never>())
  const early: Array<unknown> = []
  let state: "connecting" | "open" | "closed" = "connecting"
  const { defaults } = options
  const client = yield* Effect.acquireRelease(
    Effect.try({
      try: (): Client =>
        create({
          ...options,
          defaults: {
            ...defaults,
            socket: {
              ...defaults?.socket,
              reconnectStrategy:
                defaults?.socket?.reconnectStrategy ??
                ((retries: number, cause: Error) =>
                  state === "connecting" ? cause : reconnectDelay(retries))
            }
          }
        } as RedisClusterOptions) as Client,
      catch: failed
    }),
    (client) =>
      Effect.sync(() => {
        state = "closed"
        close(client)
      })
  )
  const warn = (cause: unknown): void => runSync(Effect.logWarning("RedisCluster client error", cause))
  const onError = (cause: unknown): void => {
    if (state === "connecting") early.push(cause)
    if (state === "open") warn(cause)
  }
  client.on("error", onError).on("node-error", onError)

  // a client that has tried several root nodes settles for the masters it could reach
  const unreachable = (): boolean =>
    options.minimizeConnections !== true && client.masters.some((node) => node.client?.isOpen !== true)
  yield* attempt(async () => {
    await client.connect()
    if (unreachable()) throw new Error("A master of the cluster cannot be reached")
  }).pipe(
    Effect.mapError(({ cause }) => {
      const last = early.at(-1)
      return last === undefined
        ? failed(cause)
        : failed(new Error(`${said(cause)}: ${said(last)}`, { cause: last }))
    })
  )
  state = "open"
  for (const cause of early) warn(cause)
  return client
})

/** Connections of its own to the nodes, each made when it is first needed. They do not reconnect. */
const connectReserved = Effect.fnUntraced(function* (
  create: CreateCluster,
  options: Omit<Options, keyof Redis.PoolOptions>
) {
  const { defaults } = options
  const scope = yield* Scope.make()
  const client = yield* connect(create, {
    ...options,
    minimizeConnections: true,
    defaults: { ...defaults, socket: { ...defaults?.socket, reconnectStrategy: false } }
  }).pipe(
    Scope.provide(scope),
    Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
  )
  return { send: sendWith(client), close: Scope.close(scope, Exit.void) }
})

// #endregion

// #region Subscribing

type OnMessage = (message: Redis.RedisMessage) => void

// a node that is frozen accepts connections, and another one may answer
const SUBSCRIBE_TIMEOUT = "5 seconds"

const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)

/** A connection to one master that is subscribed, and what tells that it was lost, and why. */
const listen = Effect.fnUntraced(function* (client: Client, channel: string, onMessage: OnMessage) {
  const node = yield* attempt(async () => client.nodeClient(anyMaster(client)))
  const lost = yield* Deferred.make<unknown>()
  let connected = false
  const subscriber = yield* Effect.acquireRelease(
    Effect.sync(() => node.duplicate({ socket: { ...node.options.socket, reconnectStrategy: false } })),
    (subscriber) =>
      Effect.sync(() => {
        // a connection that is being made cannot be ended
        if (connected) destroy(subscriber)
        else subscriber.on("connect", () => destroy(subscriber))
      })
  )
  subscriber.on("error", (cause) => Deferred.doneUnsafe(lost, Effect.succeed(cause)))
  subscriber.once("connect", () => (connected = true))
  yield* attempt(async () => {
    await subscriber.connect()
    await subscriber.subscribe(channel, (message, channel) => onMessage({ channel, message }))
  }).pipe(
    Effect.timeoutOrElse({
      duration: SUBSCRIBE_TIMEOUT,
      orElse: () => Effect.fail(failed(new Error("A node does not answer a subscriber")))
    })
  )
  return lost
})

/**
 * The client's own subscriptions stay with one node for as long as the cluster lists it, and end silently if its
 * connection ends for good. Here a lost connection is followed by one to any master that answers.
 */
const subscribeWith = (client: Client, closed: Deferred.Deferred<never, Redis.RedisError>) =>
  Effect.fnUntraced(function* (channel: string, onMessage: OnMessage) {
    const started = yield* Deferred.make<void, Redis.RedisError>()
    let subscribed = false
    const untilLost = Effect.scoped(
      Effect.gen(function* () {
        const lost = yield* listen(client, channel, onMessage)
        subscribed = true
        yield* Deferred.succeed(started, undefined)
        yield* Effect.logWarning("RedisCluster lost a subscriber's connection", yield* Deferred.await(lost))
      })
    )
    const fiber = yield* untilLost.pipe(
      Effect.tapError(({ cause }) =>
        subscribed ? Effect.logWarning("RedisCluster could not subscribe again", cause) : Effect.void
      ),
      Effect.retry({ schedule: backoff, while: () => subscribed }),
      Effect.forever,
      Effect.raceFirst(Deferred.await(closed)),
      Effect.onError((cause) => Deferred.failCause(started, cause)),
      Effect.forkScoped
    )
    yield* Deferred.await(started)
    return Fiber.join(fiber)
  })

// #endregion

const make = Effect.fnUntraced(function* ({
  acquireTimeout,
  idleTimeout,
  maxConnections,
  minConnections,
  ...options
}: Options) {
  const create = yield* load
  const closed = yield* Deferred.make<never, Redis.RedisError>()
  yield* Effect.addFinalizer(() => Deferred.fail(closed, failed(new Error("The cluster client is closed"))))
  const client = yield* connect(create, options)
  return yield* Redis.make({
    send: sendWith(client),
    subscribe: subscribeWith(client, closed),
    connect: connectReserved(create, options),
    pool: { acquireTimeout, idleTimeout, maxConnections, minConnections }
  })
})

/**
 * The `Redis` service of a cluster, connected when the layer is built and closed with it, which fails the commands
 * under way.
 *
 * - `send` takes a command to the node of its first key. One without a key goes to any one master, of which alone
 *   it speaks (`DBSIZE`, `KEYS`, `FLUSHALL`, ...); `SCRIPT LOAD` goes to all masters. All keys of a command have to
 *   be of one hash slot.
 * - `subscribe` listens at any one master: the nodes tell one another of what is published. A connection that was
 *   lost is made again, at another node if need be, and what was published meanwhile is missed. The queue fails if
 *   the first connection does, and when the layer ends.
 * - `reserve` gives connections of one's own, one to each node that its commands lead to. They do not reconnect.
 *
 * Fails with a `RedisError` if the package `redis` is not installed, no root node answers, or a master cannot be
 * reached (see {@link Options}). What goes wrong with a connection later is logged as a warning; commands fail with
 * a `RedisError`.
 */
export const layer = (options: Options): Layer.Layer<Redis.Redis, Redis.RedisError> =>
  Layer.effect(Redis.Redis, make(options))
