/** Finds out when a store is opened what its user may not do, instead of with the first statement that is denied. */
import { Data, Effect } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Database from "../Database.ts"

/** The user of the client lacks rights on tables of the store. */
export class MissingRights extends Data.TaggedError("MissingRights")<{
  /** The name of the store: its database. */
  readonly store: string
  /** What is denied, such as `DELETE on chicory_tasks`. */
  readonly denied: ReadonlyArray<string>
}> {
  override get message(): string {
    return (
      `${this.store}: the user of the SqlClient lacks ${this.denied.join(", ")}; ` +
      `grant it SELECT, INSERT, UPDATE and DELETE on the tables of the store`
    )
  }
}

/** Statements that need one right each, and touch no row. */
const statements = (table: string): ReadonlyArray<readonly [right: string, statement: string]> => [
  ["SELECT", `SELECT id FROM ${table} WHERE 1 = 0`],
  ["INSERT", `INSERT INTO ${table} (id) SELECT id FROM ${table} WHERE 1 = 0`],
  ["UPDATE", `UPDATE ${table} SET id = id WHERE 1 = 0`],
  ["DELETE", `DELETE FROM ${table} WHERE 1 = 0`]
]

/** MariaDB's numbers for a denied statement, and for an allowed one that leaves out a column. */
const MYSQL_DENIED = 1142
const MYSQL_NO_DEFAULT = 1364

const errnoOf = ({ reason }: SqlError.SqlError): unknown =>
  (reason.cause as { readonly errno?: unknown } | undefined)?.errno

const isDenied = (error: SqlError.SqlError): boolean =>
  error.reason._tag === "AuthorizationError" || errnoOf(error) === MYSQL_DENIED

/** Fails with `MissingRights` if the user may not read and write the tables. A file has no users. */
export const checkRights = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, SqlError.SqlError | MissingRights, SqlClient.SqlClient> {
  const { dialect, outsideTransaction, run, store, table, tableName } = yield* Database.make(options)
  const denied: Array<string> = []
  for (const name of dialect.sharedTables) {
    for (const [right, statement] of statements(table(name))) {
      yield* Effect.catch(outsideTransaction(run(statement)), (error) => {
        if (isDenied(error)) denied.push(`${right} on ${tableName(name)}`)
        // a read-only server does not say whether the user may write
        const isNoFinding =
          errnoOf(error) === MYSQL_NO_DEFAULT ||
          dialect.readOnlySessions?.isRefusal(error.reason.cause ?? {}) === true
        return isDenied(error) || isNoFinding ? Effect.void : Effect.fail(error)
      })
    }
  }
  if (denied.length > 0) yield* new MissingRights({ store, denied })
})
