/** The schema of the store, step by step, for each kind of database. */
import type { DialectName } from "../dialect/Dialect.ts"
import type { Migration } from "./Migration.ts"
import { mysqlMigrations } from "./mysqlMigrations.ts"
import { postgresMigrations } from "./postgresMigrations.ts"
import { sqliteMigrations } from "./sqliteMigrations.ts"

/** In order. */
export const schema: Readonly<Record<DialectName, ReadonlyArray<Migration>>> = {
  postgres: postgresMigrations,
  mysql: mysqlMigrations,
  sqlite: sqliteMigrations
}
