/** Finds out when a store is opened what its user may not do, instead of with the first statement that is denied. */
import { Data, Effect } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Database from "../Database.ts"
import type { Rights, SelectedRights, TriedRights } from "../dialect/Dialect.ts"
import * as Row from "../Row.ts"

/** The user of the client lacks rights on tables of the store. */
export class MissingRights extends Data.TaggedError("MissingRights")<{
  /** The name of the store: its database. */
  readonly store: string
  /** The user of the client. */
  readonly user: string
  /** What is denied, such as `DELETE on chicory_tasks`. */
  readonly denied: ReadonlyArray<string>
  /** The statements that grant it. */
  readonly grants: ReadonlyArray<string>
}> {
  override get message(): string {
    return `${this.store}: the user ${this.user} lacks ${this.denied.join(", ")}; run: ${this.grants.join("; ")}`
  }
}

/** A right that is denied. */
interface Denied {
  readonly privilege: string
  /** The name of a table or function, with the prefix. */
  readonly target: string
}

/** A statement that needs a right, and touches no row. */
interface Trial extends Denied {
  readonly statement: string
}

const trialsOf = ({ table, tableName }: Database.Database, { tables }: Rights): ReadonlyArray<Trial> =>
  tables.flatMap((name) => {
    const [quoted, target] = [table(name), tableName(name)]
    return [
      { target, privilege: "SELECT", statement: `SELECT id FROM ${quoted} WHERE 1 = 0` },
      {
        target,
        privilege: "INSERT",
        statement: `INSERT INTO ${quoted} (id) SELECT id FROM ${quoted} WHERE 1 = 0`
      },
      { target, privilege: "UPDATE", statement: `UPDATE ${quoted} SET id = id WHERE 1 = 0` },
      { target, privilege: "DELETE", statement: `DELETE FROM ${quoted} WHERE 1 = 0` }
    ]
  })

/** Tries all statements at once, and each by itself if that fails. */
const tryRights = Effect.fnUntraced(function* (
  db: Database.Database,
  rights: Rights,
  { isAllowed, isDenied, join }: TriedRights
): Effect.fn.Return<ReadonlyArray<Denied>, SqlError.SqlError> {
  const trials = trialsOf(db, rights)
  if (yield* Effect.isSuccess(db.run(join(trials.map(({ statement }) => statement))))) return []
  // a read-only server does not say whether the user may write
  const isReadOnly = db.dialect.readOnlySessions?.isRefusal ?? (() => false)
  return yield* Effect.filter(trials, ({ statement }) =>
    Effect.catch(Effect.as(db.run(statement), false), (error) => {
      const cause = error.reason.cause ?? {}
      if (isDenied(cause)) return Effect.succeed(true)
      return isAllowed(cause) || isReadOnly(cause) ? Effect.succeed(false) : Effect.fail(error)
    })
  )
})

const selectRights = (
  { reader, run, tableName }: Database.Database,
  { functions, tables }: Rights,
  { select }: SelectedRights
): Effect.Effect<ReadonlyArray<Denied>, Database.StoreError> =>
  Effect.flatMap(
    run(select(tables.map(tableName), functions.map(tableName))),
    reader<Denied>("(rights)", { privilege: Row.text, target: Row.text })
  )

/** Returns a `GRANT` for each table or function. */
const grantsOf = (
  { dialect, tableName }: Database.Database,
  { functions }: Rights,
  denied: ReadonlyArray<Denied>,
  user: string
): ReadonlyArray<string> => {
  const byTarget = Map.groupBy(denied, ({ target }) => target)
  const functionNames = new Set(functions.map(tableName))
  return Array.from(byTarget, ([target, rights]) => {
    const kind = functionNames.has(target) ? "FUNCTION " : ""
    const privileges = rights.map(({ privilege }) => privilege).join(", ")
    return `GRANT ${privileges} ON ${kind}${dialect.identifier(target)} TO ${user}`
  })
}

/** Fails with `MissingRights` if the user may not read and write the tables. A file has no users. */
export const checkRights = Effect.fnUntraced(function* (
  options?: Database.Options
): Effect.fn.Return<void, Database.StoreError | MissingRights, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const { rights } = db.dialect
  if (rights === undefined) return
  yield* db.outsideTransaction(
    Effect.gen(function* () {
      const { by } = rights
      const found = yield* by._tag === "Selected" ? selectRights(db, rights, by) : tryRights(db, rights, by)
      if (found.length === 0) return
      const readName = db.reader<{ readonly name: string }>("(user)", { name: Row.text })
      const [row] = yield* Effect.flatMap(db.run(rights.user), readName)
      const user = row!.name
      return yield* new MissingRights({
        store: db.store,
        user,
        denied: found.map(({ privilege, target }) => `${privilege} on ${target}`),
        grants: grantsOf(db, rights, found, user)
      })
    })
  )
})
