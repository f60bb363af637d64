/** Locations of stores, in a form that another process can take, and how they are reached. */
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

interface Prefixed {
  /** Starts the names of its tables or keys. */
  readonly prefix: string
}

export interface SqliteLocation extends Prefixed {
  readonly dialect: "sqlite"
  readonly filename: string
}

export interface PostgresLocation extends Prefixed {
  readonly dialect: "postgres"
  readonly url: string
  /** The schema of all its names. */
  readonly schema: string
}

export interface MariadbLocation extends Prefixed {
  readonly dialect: "mysql"
  readonly url: string
}

/** Tables of a database. */
export type SqlLocation = SqliteLocation | PostgresLocation | MariadbLocation

export interface RedisLocation extends Prefixed {
  readonly dialect: "redis"
  readonly url: string
}

/** Messages in RabbitMQ, and results elsewhere. */
export interface RabbitmqLocation {
  readonly rabbitmq: { readonly url: string; readonly prefix: string }
}

/** Everything in one store, or the messages in RabbitMQ. */
export type StoreLocation = (SqlLocation | RedisLocation) & Partial<RabbitmqLocation>

/** Whether all of it is in a database. */
export const isSql = (location: StoreLocation): location is SqlLocation =>
  location.dialect !== "redis" && location.rabbitmq === undefined

/** Encodes a location as a program's argument. */
export const encode = (location: StoreLocation): string => JSON.stringify(location)

/** Decodes a program's argument. */
export const decode = (argument = ""): StoreLocation => JSON.parse(argument) as StoreLocation

/** A new client. */
export const clientLayer = (location: SqlLocation): Layer.Layer<SqlClient.SqlClient, unknown> => {
  switch (location.dialect) {
    case "sqlite":
      return SqliteClient.layer(location)
    case "postgres":
      return PgClient.layer({
        url: Redacted.make(location.url),
        maxConnections: 8,
        startupParameters: { search_path: location.schema }
      })
    case "mysql":
      return MysqlClient.layer({ url: location.url, maxConnections: 8 })
  }
}

/** The drivers of a location. */
export interface Drivers {
  readonly backend: BackendDriver
  readonly broker: BrokerDriver
}

const driversOfStore = (
  location: SqlLocation | RedisLocation
): Effect.Effect<Drivers, unknown, Scope.Scope> =>
  location.dialect === "redis"
    ? Effect.flatMap(Layer.build(NodeRedis.layer(location)), (redis) =>
        Effect.provideContext(RedisStore.makeDrivers({ prefix: location.prefix }), redis)
      )
    : Effect.flatMap(Layer.build(clientLayer(location)), (client) =>
        Effect.andThen(Migrations.run(location), SqlDrivers.make({ prefix: location.prefix })).pipe(
          Effect.provideContext(client)
        )
      )

/** Opens new connections and makes the drivers over them, which live as long as the scope. */
export const drivers = Effect.fnUntraced(function* (
  location: StoreLocation
): Effect.fn.Return<Drivers, unknown, Scope.Scope> {
  const drivers = yield* driversOfStore(location)
  return location.rabbitmq === undefined
    ? drivers
    : { ...drivers, broker: yield* RabbitBroker.makeDriver(location.rabbitmq) }
})

/** Makes both services over drivers. */
export const services = Effect.fnUntraced(function* ({
  backend,
  broker
}: Drivers): Effect.fn.Return<Context.Context<Backend.Backend | Broker.Broker>, never, Scope.Scope> {
  return Context.make(Backend.Backend, yield* Backend.make(backend)).pipe(
    Context.add(Broker.Broker, yield* Broker.make(broker))
  )
})

/** Both services over new connections. */
export const layer = (location: StoreLocation): Layer.Layer<Backend.Backend | Broker.Broker, unknown> =>
  Layer.effectContext(Effect.flatMap(drivers(location), services))

/** The store and the client beneath it. */
export const sqlLayer = (
  location: SqlLocation
): Layer.Layer<Backend.Backend | Broker.Broker | SqlClient.SqlClient, unknown> =>
  SqlStore.layer({ prefix: location.prefix }).pipe(Layer.provideMerge(clientLayer(location)))
