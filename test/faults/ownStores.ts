/** Stores over dedicated servers: how they are started, what they persist, how they are reached. */
import { describe } from "@effect/vitest"
import { type Duration, Effect, Layer, type Scope } from "effect"
import type { SqlClient } from "effect/sql"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import * as MysqlClient from "../mariadb/MysqlClient.ts"
import * as Mariadb from "../mariadb/ownServer.ts"
import * as Postgres from "../postgres/ownServer.ts"
import { closing } from "../rabbitmq/closing.ts"
import * as Rabbitmq from "../rabbitmq/ownServer.ts"
import * as Redis from "../redis/server.ts"
import { clientOf as redisClientOf } from "../redis/storeFixture.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import type { Options as NetworkOptions } from "../support/network.ts"
import type { OwnServer, ServerError } from "../support/ownServers.ts"
import type * as StoreLocations from "../support/storeLocations.ts"

/** How a client reaches a store. */
export interface OpenOptions {
  /** For each server, in the order of `servers`: its URL, or that of a route to it. */
  readonly urls: ReadonlyArray<string>
  /** Default: the store's. */
  readonly callTimeout?: Duration.Input | undefined
}

/** A store under a fresh prefix. */
export interface StoreInstance {
  /** The location for another process, by these URLs of the servers. */
  readonly locationFor: (urls: ReadonlyArray<string>) => StoreLocations.StoreLocation
  /** Opens new connections and makes drivers over them. */
  readonly open: (options: OpenOptions) => Effect.Effect<StoreLocations.Drivers, unknown, Scope.Scope>
}

/** The running servers of a store. */
export interface RunningStore {
  readonly servers: ReadonlyArray<OwnServer>
  /** How a network to each server ends a connection. */
  readonly networks: ReadonlyArray<NetworkOptions>
  readonly newInstance: Effect.Effect<StoreInstance, unknown, Scope.Scope>
  /**
   * Waits until a killed server would keep what it has written for its own use. Confirmed tasks are kept anyway, if
   * anything is.
   */
  readonly settle: Effect.Effect<void, ServerError>
}

/** A store and the servers that it needs. */
export interface OwnStore {
  readonly name: string
  /** The names of its servers, in order. */
  readonly parts: ReadonlyArray<string>
  /** Whether confirmed tasks survive a killed and restarted server. */
  readonly persistence: "kept" | "none"
  /** Registers a suite that needs the servers to be installed. */
  readonly describe: (name: string, body: () => void) => void
  /** Starts the servers. */
  readonly start: Effect.Effect<RunningStore, unknown, Scope.Scope>
}

const nothingToSettle: Effect.Effect<void> = Effect.void

const makePrefix = (): string => `t${crypto.randomUUID().replaceAll("-", "").slice(0, 12)}`

type Open = (
  prefix: string,
  options: OpenOptions
) => Effect.Effect<StoreLocations.Drivers, unknown, Scope.Scope>

/** Makes a store on one server, with a prefix for each instance. */
const onOneServer = (
  part: string,
  name: string,
  persistence: OwnStore["persistence"],
  describe: OwnStore["describe"],
  startServer: Effect.Effect<OwnServer, unknown, Scope.Scope>,
  locationFor: (url: string, prefix: string) => StoreLocations.StoreLocation,
  open: Open
): OwnStore => ({
  name,
  parts: [part],
  persistence,
  describe,
  start: Effect.map(startServer, (server) => ({
    servers: [server],
    networks: [{}],
    newInstance: Effect.sync(() => {
      const prefix = makePrefix()
      return {
        locationFor: ([url = ""]) => locationFor(url, prefix),
        open: (options) => open(prefix, options)
      }
    }),
    settle: nothingToSettle
  }))
})

// #region Redis

const openRedis: Open = (prefix, { callTimeout, urls: [url] }) =>
  Effect.flatMap(redisClientOf(url!), (redis) =>
    Effect.provideContext(RedisStore.makeDrivers({ prefix, callTimeout }), redis)
  )

const redisServers = {
  always: { persistent: true },
  everysec: { args: ["--appendonly", "yes", "--appendfsync", "everysec"] },
  never: {}
} as const satisfies Record<string, Redis.ServerOptions>

/** Redis, by when it writes to disk. */
export const redis = (writes: keyof typeof redisServers = "always"): OwnStore =>
  onOneServer(
    "Redis",
    `Redis that writes ${writes}`,
    writes === "never" ? "none" : "kept",
    Redis.describeWithServers,
    Redis.startServer(redisServers[writes]),
    (url, prefix) => ({ dialect: "redis", url, prefix }),
    openRedis
  )

// #endregion

// #region SQL

const openSql =
  (clientOf: (url: string) => Layer.Layer<SqlClient.SqlClient, unknown>): Open =>
  (prefix, { callTimeout, urls: [url] }) =>
    Effect.flatMap(Layer.build(clientOf(url!)), (client) =>
      Effect.andThen(Migrations.run({ prefix }), SqlDrivers.make({ prefix, callTimeout })).pipe(
        Effect.provideContext(client)
      )
    )

/** PostgreSQL, by whether it writes to disk before it confirms. */
export const postgres = (synchronous: "on" | "off" = "on"): OwnStore =>
  onOneServer(
    "PostgreSQL",
    `PostgreSQL, synchronous_commit ${synchronous}`,
    synchronous === "on" ? "kept" : "none",
    Postgres.describeWithOwnPostgres,
    Postgres.startServer({
      settings: {
        max_connections: "200",
        fsync: synchronous,
        full_page_writes: "on",
        synchronous_commit: synchronous
      }
    }),
    (url, prefix) => ({ dialect: "postgres", url, prefix, schema: "public" }),
    openSql((url) => Postgres.clientOf(url, { maxConnections: 5 }))
  )

/** MariaDB, by what a commit does: 1 writes to disk, 2 hands the log to the system, 0 does so within a second. */
export const mariadb = (flushes: "0" | "1" | "2" = "1"): OwnStore =>
  onOneServer(
    "MariaDB",
    `MariaDB, innodb_flush_log_at_trx_commit ${flushes}`,
    flushes === "0" ? "none" : "kept",
    Mariadb.describeWithOwnMariadb,
    Mariadb.startServer({
      settings: { "innodb-flush-log-at-trx-commit": flushes, "max-connections": "200" }
    }),
    (url, prefix) => ({ dialect: "mysql", url, prefix }),
    openSql((url) => MysqlClient.layer({ url, maxConnections: 5 }))
  )

// #endregion

// #region SQLite

/** SQLite, which needs no server. */
export const sqlite: OwnStore = {
  name: "SQLite",
  parts: [],
  persistence: "kept",
  describe,
  start: Effect.succeed({
    servers: [],
    networks: [],
    newInstance: Effect.map(temporaryFile, (filename) => ({
      locationFor: () => ({ dialect: "sqlite", filename, prefix: "chicory" }),
      open: () => SqliteStore.makeDrivers({ filename })
    })),
    settle: nothingToSettle
  })
}

// #endregion

// #region RabbitMQ

/** Messages in RabbitMQ, and results in a file. */
export const rabbitmqWithSqlite: OwnStore = {
  name: "RabbitMQ with SQLite",
  parts: ["RabbitMQ"],
  persistence: "kept",
  describe: Rabbitmq.describeWithOwnRabbit,
  start: Effect.map(Rabbitmq.startServer(), (server) => ({
    servers: [server],
    networks: [{ closingData: closing }],
    newInstance: Effect.map(temporaryFile, (filename) => {
      const prefix = makePrefix()
      return {
        locationFor: ([url = ""]) => ({
          dialect: "sqlite",
          filename,
          prefix: "chicory",
          rabbitmq: { url, prefix }
        }),
        open: ({ callTimeout, urls: [url] }) =>
          Effect.all({
            backend: Effect.map(SqliteStore.makeDrivers({ filename }), ({ backend }) => backend),
            broker: RabbitBroker.makeDriver({ url, prefix, callTimeout })
          })
      }
    }),
    settle: server.settle
  }))
}

/** Messages in RabbitMQ, and results in Redis. */
export const rabbitmqWithRedis = (writes: keyof typeof redisServers = "always"): OwnStore => ({
  name: `RabbitMQ with Redis that writes ${writes}`,
  parts: ["RabbitMQ", "Redis"],
  persistence: writes === "never" ? "none" : "kept",
  describe: (name, body) => Rabbitmq.describeWithOwnRabbit(name, () => Redis.describeWithServers(name, body)),
  start: Effect.map(
    Effect.all([Rabbitmq.startServer(), Redis.startServer(redisServers[writes])], { concurrency: 2 }),
    ([rabbit, redis]) => ({
      servers: [rabbit, redis],
      networks: [{ closingData: closing }, {}],
      newInstance: Effect.sync(() => {
        const prefix = makePrefix()
        return {
          locationFor: ([rabbitUrl = "", url = ""]) => ({
            dialect: "redis",
            url,
            prefix,
            rabbitmq: { url: rabbitUrl, prefix }
          }),
          open: ({ callTimeout, urls: [rabbitUrl, redisUrl] }) =>
            Effect.all({
              backend: Effect.map(
                openRedis(prefix, { callTimeout, urls: [redisUrl!] }),
                ({ backend }) => backend
              ),
              broker: RabbitBroker.makeDriver({ url: rabbitUrl, prefix, callTimeout })
            })
        }
      }),
      settle: rabbit.settle
    })
  )
})

// #endregion
