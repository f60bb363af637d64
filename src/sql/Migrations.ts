/**
 * Brings the tables of a store up to date: numbered steps, each applied once, however many processes start at once.
 *
 * Effect's `Migrator` makes its table outside the transaction and lets a second process go on while the first still
 * migrates. Here whoever comes second waits for the lock, and finds the work done.
 */
import { Data, Effect } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Database from "./Database.ts"
import * as Row from "./Row.ts"

/** The tables were made by a newer version of this library. */
export class SchemaTooNew extends Data.TaggedError("SchemaTooNew")<{
  /** The file or database. */
  readonly store: string
  /** The version of its tables. */
  readonly found: number
  /** The newest version that this code knows. */
  readonly known: number
}> {
  override get message(): string {
    return (
      `${this.store}: its tables have version ${this.found}, this version of chicory knows up to ${this.known}; ` +
      `update chicory, or give another prefix`
    )
  }
}

/** What a migration can fail with. */
export type MigrationError = SqlError.SqlError | Row.CorruptRow | SchemaTooNew

/** Applies what is missing. */
export const run = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, MigrationError, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const migrations = db.dialect.migrations
  const known = migrations.at(-1)!.id
  const table = db.table("schema")
  const read = db.reader<{ readonly version: number | null }>("schema", { version: Row.orNull(Row.integer) })
  const version = Effect.map(
    Effect.flatMap(db.run(`SELECT MAX(version) AS version FROM ${table}`), read),
    (rows) => rows[0]?.version ?? 0
  )

  const migrate = Effect.gen(function* () {
    yield* db.run(
      `CREATE TABLE IF NOT EXISTS ${table} (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)`
    )
    const found = yield* version
    for (const migration of migrations) {
      if (migration.id <= found) continue
      for (const statement of migration.statements(db.table)) yield* db.run(statement)
      yield* db.run(`INSERT INTO ${table} (version, name, applied_at) VALUES (?, ?, ${db.dialect.now})`, [
        migration.id,
        migration.name
      ])
    }
    return Math.max(found, known)
  })

  // without a write lock, where there is nothing to do
  const before = yield* Effect.orElseSucceed(version, () => 0)
  const found = before >= known ? before : yield* db.transaction(migrate)
  if (found > known) return yield* new SchemaTooNew({ store: db.store, found, known })
})
