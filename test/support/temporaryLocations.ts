/** Places that nobody else has; what is in them is gone when the scope closes. */
import { Effect, type Scope } from "effect"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import * as Rabbitmq from "../rabbitmq/server.ts"
import { temporaryPrefix } from "../rabbitmq/shared.ts"
import { sharedUrl as sharedRedis } from "../redis/server.ts"
import * as Redis from "../redis/temporary.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import type {
  InRabbitmq,
  MariadbPlace,
  Place,
  PostgresPlace,
  RedisPlace,
  SqlitePlace
} from "./storeLocations.ts"

export type Temporary<P extends Place = Place> = Effect.Effect<P, unknown, Scope.Scope>

export const sqlite: Temporary<SqlitePlace> = Effect.map(temporaryFile, (filename) => ({
  dialect: "sqlite",
  filename,
  prefix: "chicory"
}))

export const postgres: Temporary<PostgresPlace> = Effect.map(Postgres.temporaryPlace(), (place) => ({
  dialect: "postgres",
  ...place,
  prefix: "chicory"
}))

export const mariadb: Temporary<MariadbPlace> = Effect.map(Mariadb.temporaryPlace, ({ prefix }) => ({
  dialect: "mysql",
  url: Mariadb.sharedUrl,
  prefix
}))

export const redis: Temporary<RedisPlace> = Effect.map(Redis.temporaryPrefix, (prefix) => ({
  dialect: "redis",
  url: sharedRedis,
  prefix
}))

/** Messages in RabbitMQ, and results where it is said. */
export const rabbitmq = <P extends Place>(results: Temporary<P>): Temporary<P & InRabbitmq> =>
  Effect.gen(function* () {
    const prefix = yield* temporaryPrefix()
    return { ...(yield* results), rabbitmq: { url: Rabbitmq.sharedUrl, prefix } }
  })

/** With a server that gives up a connection which says nothing for some two seconds. */
export const impatient = <P extends Place & InRabbitmq>(place: Temporary<P>): Temporary<P> =>
  Effect.map(place, (place) => {
    const url = new URL(place.rabbitmq.url)
    url.searchParams.set("heartbeat", "1")
    return { ...place, rabbitmq: { ...place.rabbitmq, url: url.href } }
  })
