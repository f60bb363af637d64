/** Where a store is, in a form that can be given to another process, and how it is reached. */
import { PgClient } from "@effect/sql-pg"
import type { Backend, Broker } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { SqlBackend, SqlStore } from "chicory/sql"
import { SqliteClient } from "chicory/sqlite"
import { Layer, Redacted } from "effect"
import type { SqlClient } from "effect/sql"
import * as MysqlClient from "../mariadb/MysqlClient.ts"

interface Tables {
  /** Begins their names. */
  readonly prefix: string
}

export interface SqlitePlace extends Tables {
  readonly dialect: "sqlite"
  readonly filename: string
}

export interface PostgresPlace extends Tables {
  readonly dialect: "postgres"
  readonly url: string
  /** The schema that all names are looked up in. */
  readonly schema: string
}

export interface MariadbPlace extends Tables {
  readonly dialect: "mysql"
  readonly url: string
}

/** Results in a file, and messages elsewhere. */
export interface RabbitmqPlace extends SqlitePlace {
  readonly rabbitmq: { readonly url: string; readonly prefix: string }
}

/** Tables of a database. */
export type Place = SqlitePlace | PostgresPlace | MariadbPlace | RabbitmqPlace

/** As an argument of a program. */
export const encode = (place: Place): string => JSON.stringify(place)

/** Its way back. */
export const decode = (argument = ""): Place => JSON.parse(argument) as Place

/** Connections of one's own. */
export const clientLayer = (place: Place): Layer.Layer<SqlClient.SqlClient, unknown> => {
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

const servicesLayer = (
  place: Place
): Layer.Layer<Backend.Backend | Broker.Broker, unknown, SqlClient.SqlClient> =>
  "rabbitmq" in place
    ? Layer.merge(SqlBackend.layer({ prefix: place.prefix }), RabbitBroker.layer(place.rabbitmq))
    : SqlStore.layer({ prefix: place.prefix })

/** The store, and the client beneath it. */
export const storeLayer = (
  place: Place
): Layer.Layer<Backend.Backend | Broker.Broker | SqlClient.SqlClient, unknown> =>
  servicesLayer(place).pipe(Layer.provideMerge(clientLayer(place)))
