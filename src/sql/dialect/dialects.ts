import type { SqlClient } from "effect/sql"
import type { Dialect, DialectName } from "./Dialect.ts"
import { mysqlDialect } from "./mysqlDialect.ts"
import { postgresDialect } from "./postgresDialect.ts"
import { sqliteDialect } from "./sqliteDialect.ts"

/** All dialects, by name. */
export const dialects: Readonly<Record<DialectName, Dialect>> = {
  postgres: postgresDialect,
  mysql: mysqlDialect,
  sqlite: sqliteDialect
}

/** Returns the dialect of a client; `undefined` if there is none. */
export const dialectOf = (client: SqlClient.SqlClient): Dialect | undefined =>
  client.onDialectOrElse({
    sqlite: (): Dialect | undefined => dialects.sqlite,
    pg: () => dialects.postgres,
    mysql: () => dialects.mysql,
    orElse: () => undefined
  })
