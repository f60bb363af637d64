/**
 * Brings the tables of a store up to date: numbered steps, each applied once, however many processes start at once.
 *
 * Effect's `Migrator` makes its table outside the transaction and lets a second process go on while the first still
 * migrates. Here whoever comes second waits for the lock, and finds the work done.
 */
import { Data, Effect } from "effect"
import { type SqlClient, SqlError } from "effect/sql"
import * as Database from "../Database.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"
import type { Migration } from "./Migration.ts"
import { schema } from "./schema.ts"

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

/** The tables are missing, or were made by an older version of this library, and this store does not migrate. */
export class SchemaTooOld extends Data.TaggedError("SchemaTooOld")<{
  readonly store: string
  /** The version of its tables; 0: there are none. */
  readonly found: number
  /** The version that this code needs. */
  readonly needed: number
}> {
  override get message(): string {
    const found = this.found === 0 ? "it has no tables of chicory" : `its tables have version ${this.found}`
    return (
      `${this.store}: ${found}, and version ${this.needed} is needed; ` +
      `apply what SqlStore.migrations prints, or start once with a layer that migrates`
    )
  }
}

/** The transactions of the client see too little of each other. */
export class WrongIsolation extends Data.TaggedError("WrongIsolation")<{
  readonly store: string
  readonly found: string
  readonly needed: string
}> {
  override get message(): string {
    return (
      `${this.store}: the transactions of the SqlClient are ${this.found}, and have to be ${this.needed}; ` +
      `set it for every connection of the client, with SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`
    )
  }
}

/** What a migration can fail with. */
export type MigrationError = SqlError.SqlError | Row.CorruptRow | SchemaTooNew | SchemaTooOld | WrongIsolation

const checkIsolation = Effect.fnUntraced(function* ({
  dialect: { isolation },
  reader,
  run,
  store
}: Database.Database) {
  if (isolation === undefined) return
  const read = reader<{ readonly level: string }>("(isolation)", { level: Row.text })
  const [row] = yield* Effect.flatMap(run(isolation.select), read)
  if (row?.level !== isolation.needed) {
    return yield* new WrongIsolation({ store, found: row?.level ?? "unknown", needed: isolation.needed })
  }
})

const latest = ({ name }: Dialect): number => schema[name].at(-1)!.id

const createVersions = (table: string): string =>
  `CREATE TABLE IF NOT EXISTS ${table} (version INTEGER NOT NULL PRIMARY KEY, name VARCHAR(200) NOT NULL, applied_at BIGINT NOT NULL)`

const insertVersion = ({ now }: Dialect, table: string, { id, name }: Migration): string =>
  `INSERT INTO ${table} (version, name, applied_at) VALUES (${id}, '${name}', ${now})`

/** The version of the tables; 0: there are none. */
const readVersion = (db: Database.Database): Effect.Effect<number, SqlError.SqlError | Row.CorruptRow> => {
  const read = db.reader<{ readonly version: number | null }>("schema", { version: Row.orNull(Row.integer) })
  return Effect.map(
    Effect.flatMap(db.run(`SELECT MAX(version) AS version FROM ${db.table("schema")}`), read),
    (rows) => rows[0]?.version ?? 0
  )
}

const SQLITE_ERROR = 1
const MYSQL_NO_SUCH_TABLE = 1146
const POSTGRES_UNDEFINED_TABLE = "42P01"

/** Each driver has its own way to say it. */
const isTableMissing = (error: SqlError.SqlError): boolean => {
  const { cause } = error.reason
  const { code, errcode, errno } = (cause ?? {}) as Readonly<Record<string, unknown>>
  return code === POSTGRES_UNDEFINED_TABLE || errno === MYSQL_NO_SUCH_TABLE || errcode === SQLITE_ERROR
}

const orNone = (version: Effect.Effect<number, SqlError.SqlError | Row.CorruptRow>) =>
  Effect.catchIf(
    version,
    (error) => error._tag === "SqlError" && isTableMissing(error),
    () => Effect.succeed(0)
  )

const checkNew = (db: Database.Database, found: number): Effect.Effect<void, SchemaTooNew> => {
  const known = latest(db.dialect)
  return found > known ? Effect.fail(new SchemaTooNew({ store: db.store, found, known })) : Effect.void
}

/** Fails if the tables are not as this code needs them. */
export const check = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, MigrationError, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  yield* db.outsideTransaction(checkIsolation(db))
  const found = yield* db.outsideTransaction(orNone(readVersion(db)))
  yield* checkNew(db, found)
  const needed = latest(db.dialect)
  if (found < needed) return yield* new SchemaTooOld({ store: db.store, found, needed })
})

/** A lock that was not got in ten minutes is no reason to go on without it. */
const refuseLocked = ([row]: ReadonlyArray<object>): Effect.Effect<void, SqlError.SqlError> => {
  if (row === undefined || !("got" in row) || row.got === 1) return Effect.void
  const message = "another process has been changing the schema for ten minutes"
  return Effect.fail(
    new SqlError.SqlError({
      reason: new SqlError.LockTimeoutError({ cause: new Error(message), message, operation: "migrate" })
    })
  )
}

/** Applies what is missing. */
export const run = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, MigrationError, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const { dialect } = db
  const table = db.table("schema")
  const exclusion = dialect.lock?.(db.tableName("schema"))

  const migrate = Effect.gen(function* () {
    yield* db.run(createVersions(table))
    const found = yield* readVersion(db)
    for (const migration of schema[dialect.name]) {
      if (migration.id <= found) continue
      for (const statement of migration.statements(db.table)) yield* db.run(statement)
      yield* db.run(insertVersion(dialect, table, migration))
    }
    return Math.max(found, latest(dialect))
  })
  const alone =
    exclusion === undefined
      ? migrate
      : Effect.acquireUseRelease(
          Effect.flatMap(db.run(exclusion.acquire), refuseLocked),
          () => migrate,
          () => (exclusion.release === undefined ? Effect.void : Effect.ignore(db.run(exclusion.release)))
        )

  yield* db.outsideTransaction(checkIsolation(db))
  // without a lock, where there is nothing to do
  const before = yield* db.outsideTransaction(orNone(readVersion(db)))
  const found = before >= latest(dialect) ? before : yield* db.outsideTransaction(db.inTransaction(alone))
  yield* checkNew(db, found)
})

/** All that `run` does to an empty database, as a script. */
export const script = (dialect: Dialect, options?: Database.Options): string => {
  const prefix = Database.prefixOf(options)
  const table = (name: string): string => dialect.identifier(`${prefix}_${name}`)
  const statements = [
    createVersions(table("schema")),
    ...schema[dialect.name].flatMap((migration) => [
      ...migration.statements(table),
      insertVersion(dialect, table("schema"), migration)
    ])
  ]
  return statements.map((statement) => `${statement};\n`).join("\n")
}
