/** Fresh store locations, which are removed with the scope. */
import { Effect, type Scope } from "effect"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import * as Rabbitmq from "../rabbitmq/server.ts"
import { temporaryPrefix } from "../rabbitmq/shared.ts"
import { sharedUrl as sharedRedis } from "../redis/server.ts"
import * as Redis from "../redis/temporary.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import type {
  RabbitmqLocation,
  MariadbLocation,
  StoreLocation,
  PostgresLocation,
  RedisLocation,
  SqliteLocation
} from "./storeLocations.ts"

export type TemporaryLocation<P extends StoreLocation = StoreLocation> = Effect.Effect<
  P,
  unknown,
  Scope.Scope
>

export const sqlite: TemporaryLocation<SqliteLocation> = Effect.map(temporaryFile, (filename) => ({
  dialect: "sqlite",
  filename,
  prefix: "chicory"
}))

export const postgres: TemporaryLocation<PostgresLocation> = Effect.map(
  Postgres.temporarySchema(),
  (location) => ({
    dialect: "postgres",
    ...location,
    prefix: "chicory"
  })
)

export const mariadb: TemporaryLocation<MariadbLocation> = Effect.map(
  Mariadb.temporaryTables,
  ({ prefix }) => ({
    dialect: "mysql",
    url: Mariadb.sharedUrl,
    prefix
  })
)

export const redis: TemporaryLocation<RedisLocation> = Effect.map(Redis.temporaryPrefix, (prefix) => ({
  dialect: "redis",
  url: sharedRedis,
  prefix
}))

/** Messages in RabbitMQ, and results in the given location. */
export const rabbitmq = <P extends StoreLocation>(
  results: TemporaryLocation<P>
): TemporaryLocation<P & RabbitmqLocation> =>
  Effect.gen(function* () {
    const prefix = yield* temporaryPrefix()
    return { ...(yield* results), rabbitmq: { url: Rabbitmq.sharedUrl, prefix } }
  })

/** Sets a heartbeat of one second: the server closes a connection that is silent for about two. */
export const withShortHeartbeat = <P extends StoreLocation & RabbitmqLocation>(
  location: TemporaryLocation<P>
): TemporaryLocation<P> =>
  Effect.map(location, (location) => {
    const url = new URL(location.rabbitmq.url)
    url.searchParams.set("heartbeat", "1")
    return { ...location, rabbitmq: { ...location.rabbitmq, url: url.href } }
  })
