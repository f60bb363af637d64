/** PostgreSQL servers that a test starts, stops and freezes, and stores on them. */
import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { PgClient } from "@effect/sql-pg"
import type { Backend, Broker } from "chicory"
import { SqlStore } from "chicory/sql"
import { type Context, Effect, Layer, Redacted, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { describeUnless } from "../support/describeUnless.ts"
import {
  launch,
  makeDirectory,
  type OwnServer as AnyServer,
  PORTS,
  run as runProgram,
  type ServerError,
  startProgram,
  temporaryDirectory
} from "../support/ownServers.ts"
import { serverUser } from "../support/serverUser.ts"
import { testOn } from "../support/testOn.ts"

/** Options of a server. */
export interface OwnServerOptions {
  /** Settings of `postgresql.conf`, such as `{ max_connections: "5" }`. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The only user who needs a password. The server starts without this user. */
  readonly lockedUser?: string | undefined
}

/** A login. Default: the superuser `postgres`, without a password, on the database `test`. */
export interface Login {
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly database?: string | undefined
}

/** A row of a query. */
export type Row = Readonly<Record<string, unknown>>

/** A server of one test, with an empty database `test`. Its URL is that of the superuser, who needs no password. */
export interface OwnServer extends AnyServer {
  readonly urlOf: (login: Login) => string
  /** Sets whether later transactions are read-only. */
  readonly setReadOnly: (on: boolean) => Effect.Effect<void, SqlError.SqlError>
  /** Runs a statement as the superuser, on a new connection. */
  readonly query: (statement: string) => Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError>
  /** Runs a script as the superuser, as `psql` does. */
  readonly script: (text: string) => Effect.Effect<void, ServerError>
  /** Ends the connections that match a condition on `pg_stat_activity` (default: all), and returns their number. */
  readonly cut: (condition?: string) => Effect.Effect<number, SqlError.SqlError>
}

// #region Programs

const ROOT = "/usr/lib/postgresql"

/** The directory of the newest version's programs. */
const programs = existsSync(ROOT)
  ? readdirSync(ROOT)
      .sort((a, b) => Number(b) - Number(a))
      .map((version) => join(ROOT, version, "bin"))
      .find((directory) => existsSync(join(directory, "initdb")))
  : undefined

/** The user that runs the server; `undefined` if there is none. */
const owner = serverUser("postgres")

/** Runs a program to its end, as the owner, without blocking other tests of this process. */
const run = (file: string, args: ReadonlyArray<string>) => runProgram(file, args, { owner })

/** Runs a program with an input. */
const runWith = (input: string, file: string, args: ReadonlyArray<string>) =>
  run("sh", ["-c", `input=$1; shift; printf '%s\\n' "$input" | "$@"`, "sh", input, file, ...args])

const program = (name: string): string => join(programs ?? ROOT, name)

// #endregion

// #region Directories

/** The data directory of a server with the database `test`, which is made once and copied. Removed when this process ends. */
const templateData = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const data = join(yield* Effect.sync(() => makeDirectory("postgres", owner)), "data")
      yield* run(program("initdb"), [
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
        "--wal-segsize=1"
      ])
      yield* runWith("CREATE DATABASE test", program("postgres"), ["--single", "-D", data, "-F", "postgres"])
      return data
    })
  )
)

/** Makes the directory of a new server. */
const serverDirectory = Effect.gen(function* () {
  const data = yield* templateData
  const directory = yield* temporaryDirectory("postgres", owner)
  yield* run("cp", ["-R", data, join(directory, "data")])
  return directory
})

// #endregion

// #region Servers

/** Settings that make a server start fast and stay small. It survives a kill of its processes, not of the machine. */
const SETTINGS = {
  listen_addresses: "127.0.0.1",
  fsync: "off",
  full_page_writes: "off",
  shared_buffers: "16MB",
  max_connections: "40",
  autovacuum: "off"
}

const urlAt =
  (port: number) =>
  ({ database = "test", password, user = "postgres" }: Login): string => {
    const secret = password === undefined ? "" : `:${encodeURIComponent(password)}`
    return `postgres://${encodeURIComponent(user)}${secret}@127.0.0.1:${port}/${database}`
  }

/** Runs a statement on a new connection. */
const query = (url: string, statement: string): Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError> =>
  Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Row>(statement)),
    PgClient.layer({ url: Redacted.make(url), maxConnections: 1 })
  )

/** Requires a password of one user, in the first line of `pg_hba.conf`. */
const requirePassword = (directory: string, user: string) =>
  run("sh", [
    "-c",
    `printf '%s\\n' "$2" "$(cat "$1")" > "$1"`,
    "sh",
    join(directory, "data", "pg_hba.conf"),
    `host all ${user} all scram-sha-256`
  ])

/** Starts a server in its own directory. Its processes are ended and the directory is removed with the scope. */
export const startServer = Effect.fnUntraced(function* ({
  lockedUser,
  settings
}: OwnServerOptions = {}): Effect.fn.Return<OwnServer, ServerError, Scope.Scope> {
  const directory = yield* serverDirectory
  if (lockedUser !== undefined) yield* requirePassword(directory, lockedUser)
  const args = [
    "-D",
    join(directory, "data"),
    ...Object.entries({ ...SETTINGS, unix_socket_directories: directory, ...settings }).flatMap(
      ([name, value]) => ["-c", `${name}=${value}`]
    )
  ]
  const server = yield* startProgram({
    name: "postgres",
    ports: PORTS.postgres,
    // SIGKILL would leave the shared memory of its processes behind
    launch: (port) => launch(program("postgres"), ["-p", String(port), ...args], { owner, quit: "SIGQUIT" }),
    ready: /ready to accept connections/,
    portTaken: "could not bind",
    stop: "SIGINT"
  })

  const urlOf = urlAt(server.port)
  const url = urlOf({})
  const runStatement = (statement: string) => query(url, statement)
  const READ_ONLY = "default_transaction_read_only"
  return {
    ...server,
    url,
    urlOf,
    setReadOnly: (on) =>
      Effect.andThen(
        runStatement(on ? `ALTER SYSTEM SET ${READ_ONLY} = on` : `ALTER SYSTEM RESET ${READ_ONLY}`),
        runStatement("SELECT pg_reload_conf()")
      ),
    query: runStatement,
    script: (text) => Effect.asVoid(runWith(text, program("psql"), ["-v", "ON_ERROR_STOP=1", "-q", url])),
    cut: (condition = "true") =>
      Effect.map(
        runStatement(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND (${condition})`
        ),
        (rows) => rows.length
      )
  }
})

// #endregion

// #region Stores

/** A store's backend and broker. */
export type Store = Context.Context<Backend.Backend | Broker.Broker>

/** Options of a store and its client. */
export interface StoreOptions extends SqlStore.Options {
  readonly client?: Partial<PgClient.PgPoolConfig> | undefined
}

/** Makes a client with its own pool. */
export const clientOf = (
  url: string,
  config?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  PgClient.layer({ url: Redacted.make(url), maxConnections: 8, ...config })

/** Opens a store with its own connections, as another process would. */
export const openStore = (
  { url }: Pick<OwnServer, "url">,
  { client, ...options }: StoreOptions = {}
): Effect.Effect<Store, Backend.BackendError | SqlError.SqlError, Scope.Scope> =>
  Layer.build(Layer.provide(SqlStore.layer(options), clientOf(url, client)))

// #endregion

// #region Suites

/** Describes a suite whose tests start their own servers. */
export const describeWithOwnPostgres = (name: string, body: () => void): void => {
  const missing =
    programs === undefined
      ? `There is no initdb below ${ROOT}: install PostgreSQL to run the servers of tests.`
      : owner === undefined
        ? "There is no user postgres, and the server does not run as root."
        : undefined
  describeUnless(missing, name, body)
}

/** Adds a test in real time, on its own server. */
export const testWithServer = testOn(startServer, 60_000)

// #endregion
