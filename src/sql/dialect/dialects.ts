import type { Dialect, DialectName } from "./Dialect.ts"
import { mysqlDialect } from "./mysqlDialect.ts"
import { postgresDialect } from "./postgresDialect.ts"
import { sqliteDialect } from "./sqliteDialect.ts"

/** All dialects. */
export const dialects: Readonly<Record<DialectName, Dialect>> = {
  postgres: postgresDialect,
  mysql: mysqlDialect,
  sqlite: sqliteDialect
}
