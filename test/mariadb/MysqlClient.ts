/**
 * Effect's `SqlClient` over `mysql2`, for tests against MariaDB.
 *
 * Pools sessions at READ COMMITTED with utf8mb4; each transaction has its own session. Interrupting a fiber kills its
 * statement and waits until the statement has ended, so that no session is reused while a statement runs there.
 *
 * Whole numbers are read as numbers, and as strings where a number would lose digits; JSON is read as text. Parameters
 * are bound as `mysql2` does by default: numbers as DOUBLE, which MariaDB accepts everywhere, `LIMIT ?` included.
 */
import { Effect, Latch, Layer, Pool, type Scope, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError, Statement } from "effect/sql"
import * as Mysql from "mysql2"

/** Options of the client. */
export interface Options {
  /** `mysql://user:password@host:port/database`. */
  readonly url: string
  /** The maximum number of sessions. Default 10. */
  readonly maxConnections?: number | undefined
}

// #region Errors

interface Failure {
  readonly code?: string
  readonly errno?: number
  readonly sqlState?: string
  readonly fatal?: boolean
}

type Reason = new (props: {
  readonly cause: unknown
  readonly message: string
  readonly operation: string
}) => SqlError.SqlErrorReason

const DUPLICATE_KEY = 1062
const DEADLOCK = 1213

const REASONS: ReadonlyMap<number | undefined, Reason> = new Map<number, Reason>([
  [DEADLOCK, SqlError.DeadlockError],
  [1205, SqlError.LockTimeoutError],
  // killed by another session, or by `max_statement_time`
  [1317, SqlError.StatementTimeoutError],
  [1969, SqlError.StatementTimeoutError],
  // the row has changed since the transaction read it
  [1020, SqlError.SerializationError],
  // denied on a database, a table, a column, or without a global privilege
  [1044, SqlError.AuthorizationError],
  [1142, SqlError.AuthorizationError],
  [1143, SqlError.AuthorizationError],
  [1227, SqlError.AuthorizationError],
  // too many sessions of this user, and a session that was killed
  [1203, SqlError.ConnectionError],
  [1927, SqlError.ConnectionError]
])

/** Reasons by the first two digits of the SQL state. */
const REASONS_OF_STATES: ReadonlyMap<string | undefined, Reason> = new Map<string, Reason>([
  ["08", SqlError.ConnectionError],
  ["23", SqlError.ConstraintError],
  ["28", SqlError.AuthenticationError],
  ["42", SqlError.SqlSyntaxError]
])

const classify = (cause: unknown, operation: string): SqlError.SqlErrorReason => {
  const { errno, fatal, sqlState } = cause as Failure
  const message = cause instanceof Error ? cause.message : String(cause)
  const props = { cause, message, operation }
  if (errno === DUPLICATE_KEY) {
    const constraint = /for key '(.+)'$/.exec(message)?.[1] ?? "unknown"
    return new SqlError.UniqueViolation({ ...props, constraint })
  }
  // a fatal error without an SQL state is an error of the socket
  const ofState = sqlState === undefined && fatal === true ? "08" : sqlState?.slice(0, 2)
  const Reason = REASONS.get(errno) ?? REASONS_OF_STATES.get(ofState) ?? SqlError.UnknownError
  return new Reason(props)
}

// #endregion

// #region Sessions

/** A connection of the pool. */
interface Session extends SqlConnection.Connection {
  readonly isOpen: () => boolean
  /** Whether an open transaction can be rolled back: a deadlock and a lost connection end it. */
  readonly isTransaction: () => boolean
  /** Resets the deadlock of an earlier transaction. */
  readonly renew: () => void
}

type Method = "execute" | "query"

interface Request {
  readonly method: Method
  readonly operation: string
  readonly text: string
  readonly params: ReadonlyArray<unknown>
  readonly rowsAsArray?: boolean
}

const toParameter = (value: unknown): Mysql.ExecuteValues => {
  if (value === undefined) return null
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  return value as Mysql.ExecuteValues
}

const toRows = <A>(result: Mysql.QueryResult): ReadonlyArray<A> =>
  Array.isArray(result) ? (result as ReadonlyArray<unknown> as ReadonlyArray<A>) : []

const open = (url: string): Effect.Effect<Mysql.Connection, SqlError.SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback((resume) => {
      const connection = Mysql.createConnection({
        uri: url,
        charset: "utf8mb4",
        timezone: "Z",
        supportBigNumbers: true,
        decimalNumbers: true,
        jsonStrings: true,
        maxPreparedStatements: 256
      })
      // the next statement fails with the error; without a listener, the error ends the process
      connection.on("error", () => {})
      connection.connect((error) =>
        resume(
          error
            ? Effect.fail(new SqlError.SqlError({ reason: classify(error, "connect") }))
            : Effect.succeed(connection)
        )
      )
    }),
    (connection) =>
      Effect.callback<void>((resume) => {
        connection.end(() => resume(Effect.void))
      })
  )

const makeSession = Effect.fnUntraced(function* (
  url: string
): Effect.fn.Return<Session, SqlError.SqlError, Scope.Scope> {
  const connection = yield* open(url)
  let deadlocked = false

  const kill = Effect.flatMap(open(url), (killer) =>
    Effect.callback<void>((resume) => {
      killer.query(`KILL QUERY ${connection.threadId}`, () => resume(Effect.void))
    })
  ).pipe(Effect.scoped, Effect.ignore)

  const send = ({ method, operation, params, rowsAsArray = false, text }: Request) =>
    Effect.callback<Mysql.QueryResult, SqlError.SqlError>((resume) => {
      const ended = Latch.makeUnsafe()
      const request = { sql: text, values: params.map(toParameter), rowsAsArray }
      const onEnd = (error: Mysql.QueryError | null, result: Mysql.QueryResult): void => {
        ended.openUnsafe()
        if (error === null) return resume(Effect.succeed(result))
        const reason = classify(error, operation)
        if (reason._tag === "ConnectionError") connection.destroy()
        if (reason._tag === "DeadlockError") deadlocked = true
        resume(Effect.fail(new SqlError.SqlError({ reason })))
      }
      if (method === "execute") connection.execute(request, onEnd)
      else connection.query(request, onEnd)
      return Effect.andThen(kill, ended.await)
    })

  const rows = (method: Method, operation: string): SqlConnection.Connection["execute"] => {
    return (text, params, transform) =>
      Effect.map(send({ method, operation, text, params }), (result) => {
        const found = toRows<object>(result)
        return transform === undefined ? found : transform(found)
      })
  }
  const values = (method: Method, operation: string): SqlConnection.Connection["executeValues"] => {
    return (text, params) =>
      Effect.map(send({ method, operation, text, params, rowsAsArray: true }), toRows<ReadonlyArray<unknown>>)
  }
  const execute = rows("execute", "execute")
  const isOpen = (): boolean => connection.state === "authenticated"

  yield* send({
    method: "query",
    operation: "connect",
    text: "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    params: []
  })
  return {
    execute,
    executeRaw: (text, params) => send({ method: "execute", operation: "executeRaw", text, params }),
    executeStream: (text, params, transform) => Stream.fromIterableEffect(execute(text, params, transform)),
    executeValues: values("execute", "executeValues"),
    executeValuesUnprepared: values("query", "executeValuesUnprepared"),
    executeUnprepared: rows("query", "executeUnprepared"),
    isOpen,
    isTransaction: () => isOpen() && !deadlocked,
    renew: () => {
      deadlocked = false
    }
  }
})

// #endregion

const escape = Statement.defaultEscape("`")

const makeCompiler = (): Statement.Compiler =>
  Statement.makeCompiler({
    dialect: "mysql",
    placeholder: () => "?",
    onIdentifier: escape,
    onRecordUpdate: () => ["", []],
    onCustom: () => ["", []]
  })

/** Opens one session, and further ones on demand. All are closed with the scope. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<SqlClient.SqlClient, SqlError.SqlError, Scope.Scope> {
  const pool = yield* Pool.makeWithStrategy({
    acquire: makeSession(options.url),
    min: 0,
    max: options.maxConnections ?? 10,
    strategy: { run: () => Effect.void, onAcquire: () => Effect.void, reclaim: () => Effect.undefined }
  })
  const acquirer: Effect.Effect<Session, SqlError.SqlError, Scope.Scope> = Effect.flatMap(
    Pool.get(pool),
    (session) => {
      if (!session.isOpen()) return Effect.andThen(Pool.invalidate(pool, session), acquirer)
      session.renew()
      return Effect.succeed(session)
    }
  )
  yield* Effect.scoped(acquirer)

  return yield* SqlClient.make({
    acquirer,
    compiler: makeCompiler(),
    driver: "mysql2",
    isTransaction: (connection) => (connection as Session).isTransaction(),
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "mariadb"]]
  }).pipe(Effect.provide(Reactivity.layer))
})

/** Provides the client as Effect's `SqlClient` service. */
export const layer = (options: Options): Layer.Layer<SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.effect(SqlClient.SqlClient, make(options))
