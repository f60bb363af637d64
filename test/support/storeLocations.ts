/** Where a store is, in a form that can be given to another process, and how it is reached. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import { Backend, Broker } from "chicory"
import type { BrokerDriver, BackendDriver } from "chicory/driver"
import { SqlStore } from "chicory/sql"
import { SqliteClient } from "chicory/sqlite"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import type { SqlClient } from "effect/sql"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import * as Migrations from "../../src/sql/schema/Migrations.ts"
import * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import * as MysqlClient from "../mariadb/MysqlClient.ts"

interface Named {
  /** Begins the names of its tables or keys. */
  readonly prefix: string
}

export interface SqlitePlace extends Named {
  readonly dialect: "sqlite"
  readonly filename: string
}

export interface PostgresPlace extends Named {
  readonly dialect: "postgres"
  readonly url: string
  /** The schema that all names are looked up in. */
  readonly schema: string
}

export interface MariadbPlace extends Named {
  readonly dialect: "mysql"
  readonly url: string
}

/** Tables of a database. */
export type SqlPlace = SqlitePlace | PostgresPlace | MariadbPlace

export interface RedisPlace extends Named {
  readonly dialect: "redis"
  readonly url: string
}

/** Messages in RabbitMQ, and results elsewhere. */
export interface InRabbitmq {
  readonly rabbitmq: { readonly url: string; readonly prefix: string }
}

/** Everything in one store, or the messages in RabbitMQ. */
export type Place = (SqlPlace | RedisPlace) & Partial<InRabbitmq>

/** Whether all of it is in a database. */
export const isSql = (place: Place): place is SqlPlace =>
  place.dialect !== "redis" && place.rabbitmq === undefined

/** As an argument of a program. */
export const encode = (place: Place): string => JSON.stringify(place)

/** Its way back. */
export const decode = (argument = ""): Place => JSON.parse(argument) as Place

/** Connections of one's own. */
export const clientLayer = (place: SqlPlace): Layer.Layer<SqlClient.SqlClient, unknown> => {
  switch (place.dialect) {
    case "sqlite":
      return SqliteClient.layer(place)
    case "postgres":
      return PgClient.layer({
        url: Redacted.make(place.url),
        maxConnections: 8,
        startupParameters: { search_path: place.schema }
      })
    case "mysql":
      return MysqlClient.layer({ url: place.url, maxConnections: 8 })
  }
}

/** The drivers of a place. */
export interface Drivers {
  readonly backend: BackendDriver
  readonly broker: BrokerDriver
}

const driversOfStore = (place: SqlPlace | RedisPlace): Effect.Effect<Drivers, unknown, Scope.Scope> =>
  place.dialect === "redis"
    ? Effect.flatMap(Layer.build(NodeRedis.layer(place)), (redis) =>
        Effect.provideContext(RedisStore.makeDrivers({ prefix: place.prefix }), redis)
      )
    : Effect.flatMap(Layer.build(clientLayer(place)), (client) =>
        Effect.andThen(Migrations.run(place), SqlDrivers.make({ prefix: place.prefix })).pipe(
          Effect.provideContext(client)
        )
      )

/** Opens connections of one's own, and makes the drivers over them. They live as long as the scope. */
export const drivers = Effect.fnUntraced(function* (
  place: Place
): Effect.fn.Return<Drivers, unknown, Scope.Scope> {
  const drivers = yield* driversOfStore(place)
  return place.rabbitmq === undefined
    ? drivers
    : { ...drivers, broker: yield* RabbitBroker.makeDriver(place.rabbitmq) }
})

/** Both services over drivers. */
export const services = Effect.fnUntraced(function* ({
  backend,
  broker
}: Drivers): Effect.fn.Return<Context.Context<Backend.Backend | Broker.Broker>, never, Scope.Scope> {
  return Context.make(Backend.Backend, yield* Backend.make(backend)).pipe(
    Context.add(Broker.Broker, yield* Broker.make(broker))
  )
})

/** Both services, as a process of its own has them. */
export const layer = (place: Place): Layer.Layer<Backend.Backend | Broker.Broker, unknown> =>
  Layer.effectContext(Effect.flatMap(drivers(place), services))

/** The store, and the client beneath it. */
export const sqlLayer = (
  place: SqlPlace
): Layer.Layer<Backend.Backend | Broker.Broker | SqlClient.SqlClient, unknown> =>
  SqlStore.layer({ prefix: place.prefix }).pipe(Layer.provideMerge(clientLayer(place)))
