/**
 * Migrates the tables of a store: numbered steps, each of which is applied once, however many processes start at once.
 *
 * Effect's `Migrator` creates its table outside the transaction and lets a second process continue while the first still
 * migrates. Here a second process waits for the lock, and finds the steps applied.
 */
import { Data, Effect } from "effect"
import { type SqlClient, SqlError } from "effect/sql"
import * as Database from "../Database.ts"
import type { Dialect } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"
import type { Migration } from "./Migration.ts"
import { schema } from "./schema.ts"

/** The tables are of a newer version of this library, which needs newer code. */
export class SchemaTooNew extends Data.TaggedError("SchemaTooNew")<{
  /** The name of the store: its file, or its database. */
  readonly store: string
  /** The version of its tables. */
  readonly found: number
  /** The version that code has to know to work on them. */
  readonly needs: number
  /** The newest version that this code knows. */
  readonly known: number
}> {
  override get message(): string {
    return (
      `${this.store}: its tables have version ${this.found} and need code that knows version ${this.needs}, ` +
      `this version of chicory knows up to ${this.known}; update chicory, or give another prefix`
    )
  }
}

/** The tables are missing, or of an older version of this library, and the layer does not migrate. */
export class SchemaTooOld extends Data.TaggedError("SchemaTooOld")<{
  readonly store: string
  /** The version of its tables; 0 if there are none. */
  readonly found: number
  /** The version that this code needs. */
  readonly needed: number
}> {
  override get message(): string {
    const found = this.found === 0 ? "it has no tables of chicory" : `its tables have version ${this.found}`
    return (
      `${this.store}: ${found}, and version ${this.needed} is needed; ` +
      `apply the script of SqlStore.migrations, or start once with a layer that migrates`
    )
  }
}

/** The transactions of the client have the wrong isolation level. */
export class WrongIsolation extends Data.TaggedError("WrongIsolation")<{
  readonly store: string
  readonly found: string
  readonly needed: string
}> {
  override get message(): string {
    return (
      `${this.store}: the isolation level of the SqlClient is ${this.found}, and has to be ${this.needed}; ` +
      `set it for every connection of the client, with SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`
    )
  }
}

/** The store was opened inside a transaction of its client, which may hold the connection that opening would wait for. */
export class OpenedInTransaction extends Data.TaggedError("OpenedInTransaction")<{
  readonly store: string
}> {
  override get message(): string {
    return `${this.store}: the store cannot be opened inside a transaction of its SqlClient: build its layer outside`
  }
}

/** The errors of a migration. */
export type MigrationError =
  | SqlError.SqlError
  | Row.CorruptRow
  | SchemaTooNew
  | SchemaTooOld
  | WrongIsolation
  | OpenedInTransaction

const checkOutside = ({
  store,
  transactionOf
}: Database.Database): Effect.Effect<void, OpenedInTransaction> =>
  Effect.withFiber(({ context }) =>
    transactionOf(context) === undefined ? Effect.void : Effect.fail(new OpenedInTransaction({ store }))
  )

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
  `CREATE TABLE IF NOT EXISTS ${table} (version INTEGER NOT NULL PRIMARY KEY, needs INTEGER NOT NULL, name VARCHAR(200) NOT NULL, applied_at BIGINT NOT NULL)`

const insertVersion = ({ now }: Dialect, table: string, { id, name, needs }: Migration): string =>
  `INSERT INTO ${table} (version, needs, name, applied_at) VALUES (${id}, ${needs}, '${name}', ${now})`

/** The version of the tables, and the one that code has to know to work on them. Both are 0 if no step was applied. */
interface Version {
  readonly version: number
  readonly needs: number
}

const noVersion: Version = { version: 0, needs: 0 }

/** Returns the version of the tables. */
const readVersion = (db: Database.Database): Effect.Effect<Version, SqlError.SqlError | Row.CorruptRow> => {
  const read = db.reader<Version>("schema", { version: Row.integer, needs: Row.integer })
  const select = `SELECT COALESCE(MAX(version), 0) AS version, COALESCE(MAX(needs), 0) AS needs FROM ${db.table("schema")}`
  return Effect.map(Effect.flatMap(db.run(select), read), (rows) => rows[0] ?? noVersion)
}

const MYSQL_NO_SUCH_TABLE = 1146
const POSTGRES_UNDEFINED_TABLE = "42P01"

/** Returns whether a table does not exist, by the error codes of the drivers. */
const isTableMissing = (error: SqlError.SqlError): boolean => {
  const { cause } = error.reason
  const { code, errno } = (cause ?? {}) as Readonly<Record<string, unknown>>
  return code === POSTGRES_UNDEFINED_TABLE || errno === MYSQL_NO_SUCH_TABLE
}

/** Returns the version of the tables, also where the table of versions does not exist. */
const findVersion = (db: Database.Database): Effect.Effect<Version, SqlError.SqlError | Row.CorruptRow> => {
  const { selectTable } = db.dialect
  if (selectTable !== undefined) {
    return Effect.flatMap(db.run(selectTable(db.tableName("schema"))), (found) =>
      found.length === 0 ? Effect.succeed(noVersion) : readVersion(db)
    )
  }
  return Effect.catchIf(
    readVersion(db),
    (error) => error._tag === "SqlError" && isTableMissing(error),
    () => Effect.succeed(noVersion)
  )
}

const checkNotNewer = (
  db: Database.Database,
  { needs, version }: Version
): Effect.Effect<void, SchemaTooNew> => {
  const known = latest(db.dialect)
  return needs > known
    ? Effect.fail(new SchemaTooNew({ store: db.store, found: version, needs, known }))
    : Effect.void
}

/** Fails if this code cannot work on the tables. */
export const check = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, MigrationError, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  yield* checkOutside(db)
  yield* db.outsideTransaction(checkIsolation(db))
  const found = yield* db.outsideTransaction(findVersion(db))
  yield* checkNotNewer(db, found)
  const needed = latest(db.dialect)
  if (found.version < needed)
    return yield* new SchemaTooOld({ store: db.store, found: found.version, needed })
})

/** Fails if the lock was not acquired within its ten minutes. */
const expectAcquired = ([row]: ReadonlyArray<object>): Effect.Effect<void, SqlError.SqlError> => {
  if (row === undefined || !("got" in row) || row.got === 1) return Effect.void
  const message = "another process has been changing the schema for ten minutes"
  return Effect.fail(
    new SqlError.SqlError({
      reason: new SqlError.LockTimeoutError({ cause: new Error(message), message, operation: "migrate" })
    })
  )
}

/** Applies the missing migrations. */
export const run = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, MigrationError, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const { dialect } = db
  const table = db.table("schema")
  const lock = dialect.lock?.(db.tableName("schema"))

  const migrate = Effect.gen(function* () {
    yield* db.run(createVersions(table))
    const { version } = yield* readVersion(db)
    for (const migration of schema[dialect.name]) {
      if (migration.id <= version) continue
      for (const statement of migration.statements(db.table)) yield* db.run(statement)
      yield* db.run(insertVersion(dialect, table, migration))
    }
    return yield* readVersion(db)
  })
  const migrateLocked =
    lock === undefined
      ? migrate
      : Effect.acquireUseRelease(
          Effect.flatMap(db.run(lock.acquire), expectAcquired),
          () => migrate,
          () => (lock.release === undefined ? Effect.void : Effect.ignore(db.run(lock.release)))
        )

  yield* checkOutside(db)
  yield* db.outsideTransaction(checkIsolation(db))
  // takes no lock if there is nothing to apply
  const before = yield* db.outsideTransaction(findVersion(db))
  const found =
    before.version >= latest(dialect) ? before : yield* db.outsideTransaction(db.inTransaction(migrateLocked))
  yield* checkNotNewer(db, found)
})

/** Returns the statements that `run` applies to tables of a version, 0 for none, as a script. */
export const script = (dialect: Dialect, after: number, options?: Database.Options): string => {
  const prefix = Database.prefixOf(options)
  const table = (name: string): string => dialect.identifier(`${prefix}_${name}`)
  const statements = [
    ...(after === 0 ? [createVersions(table("schema"))] : []),
    ...schema[dialect.name]
      .slice(after)
      .flatMap((migration) => [
        ...migration.statements(table),
        insertVersion(dialect, table("schema"), migration)
      ])
  ]
  return statements.map((statement) => `${statement};\n`).join("\n")
}
