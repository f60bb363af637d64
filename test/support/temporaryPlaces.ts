/** Places that nobody else has; what is in them is gone when the scope closes. */
import { Effect, type Scope } from "effect"
import * as Mariadb from "../mariadb/server.ts"
import * as Postgres from "../postgres/server.ts"
import * as Rabbitmq from "../rabbitmq/server.ts"
import { temporaryPrefix } from "../rabbitmq/shared.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import type { MariadbPlace, PostgresPlace, RabbitmqPlace, SqlitePlace } from "./places.ts"

type Temporary<Place> = Effect.Effect<Place, unknown, Scope.Scope>

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

export const rabbitmq: Temporary<RabbitmqPlace> = Effect.gen(function* () {
  const prefix = yield* temporaryPrefix()
  return { ...(yield* sqlite), rabbitmq: { url: Rabbitmq.sharedUrl, prefix } }
})
