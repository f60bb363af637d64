import type { DialectName } from "../dialect/Dialect.ts"
import type { Migration } from "./Migration.ts"
import { mysqlMigrations } from "./mysqlMigrations.ts"
import { postgresMigrations } from "./postgresMigrations.ts"
import { sqliteMigrations } from "./sqliteMigrations.ts"

/** The migrations of every dialect, in order of their ids. */
export const schema: Readonly<Record<DialectName, ReadonlyArray<Migration>>> = {
  postgres: postgresMigrations,
  mysql: mysqlMigrations,
  sqlite: sqliteMigrations
}
