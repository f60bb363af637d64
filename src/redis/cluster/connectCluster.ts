/** Connects cluster clients, and closes them. */
import { Effect, Exit, Scope } from "effect"
import type { Redis } from "effect/persistence"
import type {
  createCluster,
  RedisClusterOptions,
  RedisFunctions,
  RedisModules,
  RedisScripts,
  RespVersions,
  TypeMapping
} from "redis"
import { makeOnceAMinute } from "../../internal/driver/onceAMinute.ts"
import { callClient, type ClusterClient, sendWith, toRedisError } from "./routeCommand.ts"

type CreateCluster = typeof createCluster

/** The options of `createCluster`. */
export type ClientOptions = RedisClusterOptions<
  RedisModules,
  RedisFunctions,
  RedisScripts,
  RespVersions,
  TypeMapping
>

/** Loads `createCluster` of the package `redis`. */
export const loadCreateCluster: Effect.Effect<CreateCluster, Redis.RedisError> = Effect.tryPromise({
  try: async () => (await import("redis")).createCluster,
  catch: (cause) =>
    toRedisError(new Error("RedisCluster needs the package `redis`: run `npm install redis`", { cause }))
})

const reconnectDelay = (retries: number): number =>
  Math.min(2 ** retries * 50, 2000) + Math.floor(Math.random() * 200)

interface Destroyable {
  readonly destroy: () => void
}

/** Destroys a connection instead of closing it: a close waits for commands to nodes that may never come back. */
export const destroy = (connection: Destroyable): void => {
  try {
    connection.destroy()
  } catch {
    // version 5 throws where a connection has ended before
  }
}

/** Destroys the client, and the connections to nodes that it completes later: one that is being made cannot be ended. */
const destroyClient = (client: ClusterClient): void => {
  const nodes = new Set<Destroyable>()
  const destroyNodes = (): void => {
    for (const { client: node } of [...client.masters, ...client.replicas])
      if (node !== undefined) nodes.add(node)
    nodes.forEach(destroy)
    destroy(client)
  }
  client.on("node-connect", destroyNodes).on("node-error", destroyNodes)
  destroyNodes()
}

type ClientState = "connecting" | "open" | "closed"

/** Creates a client that does not reconnect before it is open, unless the options say how. */
const createClient = (
  create: CreateCluster,
  options: ClientOptions,
  stateOf: () => ClientState
): ClusterClient => {
  const { defaults } = options
  const reconnectStrategy =
    defaults?.socket?.reconnectStrategy ??
    ((retries: number, cause: Error) => (stateOf() === "connecting" ? cause : reconnectDelay(retries)))
  return create({
    ...options,
    defaults: { ...defaults, socket: { ...defaults?.socket, reconnectStrategy } }
  } as RedisClusterOptions) as ClusterClient
}

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/**
 * Connects a client, which is destroyed with the scope. Errors of the client before it is open explain why it did not
 * connect; later ones are logged as warnings.
 */
export const connectCluster = Effect.fnUntraced(function* (
  create: CreateCluster,
  options: ClientOptions
): Effect.fn.Return<ClusterClient, Redis.RedisError, Scope.Scope> {
  const runSync = Effect.runSyncWith(yield* Effect.context<never>())
  const errorsBefore: Array<unknown> = []
  let state: ClientState = "connecting"
  const client = yield* Effect.acquireRelease(
    Effect.try({ try: () => createClient(create, options, () => state), catch: toRedisError }),
    (client) =>
      Effect.sync(() => {
        state = "closed"
        destroyClient(client)
      })
  )
  const isNews = makeOnceAMinute()
  const warn = (cause: unknown): void =>
    runSync(
      Effect.flatMap(isNews, (isNews) =>
        (isNews ? Effect.logWarning : Effect.logDebug)("The Redis cluster client reported an error", cause)
      )
    )
  const onError = (cause: unknown): void => {
    if (state === "connecting") errorsBefore.push(cause)
    if (state === "open") warn(cause)
  }
  client.on("error", onError).on("node-error", onError)

  // A client that has tried several root nodes succeeds with the masters that it could reach.
  const hasUnreachableMaster = (): boolean =>
    options.minimizeConnections !== true && client.masters.some((node) => node.client?.isOpen !== true)
  yield* callClient(async () => {
    await client.connect()
    if (hasUnreachableMaster()) throw new Error("A master of the cluster cannot be reached")
  }).pipe(
    Effect.mapError(({ cause }) => {
      const last = errorsBefore.at(-1)
      return last === undefined
        ? toRedisError(cause)
        : toRedisError(new Error(`${messageOf(cause)}: ${messageOf(last)}`, { cause: last }))
    })
  )
  state = "open"
  for (const cause of errorsBefore) warn(cause)
  return client
})

/** Connects a client for `Redis.reserve`: a connection to each node, made when it is first needed. None reconnects. */
export const connectReserved = Effect.fnUntraced(function* (create: CreateCluster, options: ClientOptions) {
  const { defaults } = options
  const scope = yield* Scope.make()
  const client = yield* connectCluster(create, {
    ...options,
    minimizeConnections: true,
    defaults: { ...defaults, socket: { ...defaults?.socket, reconnectStrategy: false } }
  }).pipe(
    Scope.provide(scope),
    Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
  )
  return { send: sendWith(client), close: Scope.close(scope, Exit.void) }
})
