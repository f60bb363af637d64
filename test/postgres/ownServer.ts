/** PostgreSQL servers that a test starts, stops, freezes and locks itself, and stores over them. */
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

/** How a server is started. */
export interface OwnServerOptions {
  /** Settings of `postgresql.conf`, such as `{ max_connections: "5" }`. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The one user who needs a password; all others are trusted. It is not made by this. */
  readonly lockedUser?: string | undefined
}

/** Who connects, and where to. Default: the superuser `postgres`, to the database `test`. */
export interface Login {
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly database?: string | undefined
}

/** A row, as the superuser's connection gives it. */
export type Row = Readonly<Record<string, unknown>>

/** A server of one's own, with an empty database `test`. Its URL is that of the superuser, who needs no password. */
export interface OwnServer extends AnyServer {
  readonly urlOf: (login: Login) => string
  /** Whether transactions that begin from now on may write. */
  readonly setReadOnly: (on: boolean) => Effect.Effect<void, SqlError.SqlError>
  /** Runs a statement as the superuser, on a connection of its own. */
  readonly query: (statement: string) => Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError>
  /** Runs a script as the superuser, as `psql` does. */
  readonly script: (text: string) => Effect.Effect<void, ServerError>
  /** Ends the connections of which the condition on `pg_stat_activity` holds; answers how many. */
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

/** `undefined`: there is nobody whom it can run as. */
const owner = serverUser("postgres")

/** Runs a program to its end, as the owner. Other tests of this process go on meanwhile. */
const run = (file: string, args: ReadonlyArray<string>) => runProgram(file, args, { owner })

/** The same, with an input. */
const runWith = (input: string, file: string, args: ReadonlyArray<string>) =>
  run("sh", ["-c", `input=$1; shift; printf '%s\\n' "$input" | "$@"`, "sh", input, file, ...args])

const program = (name: string): string => join(programs ?? ROOT, name)

// #endregion

// #region Directories

/** The data of a new server with the database `test`: made once, and copied. It is removed when this process ends. */
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

/** The directory of a new server. */
const serverDirectory = Effect.gen(function* () {
  const data = yield* templateData
  const directory = yield* temporaryDirectory("postgres", owner)
  yield* run("cp", ["-R", data, join(directory, "data")])
  return directory
})

// #endregion

// #region Servers

/** What differs from a server that has to keep its data. */
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

/** Runs a statement on a connection of its own. */
const query = (url: string, statement: string): Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError> =>
  Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Row>(statement)),
    PgClient.layer({ url: Redacted.make(url), maxConnections: 1 })
  )

const lock = (directory: string, user: string) =>
  run("sh", [
    "-c",
    `printf '%s\\n' "$2" "$(cat "$1")" > "$1"`,
    "sh",
    join(directory, "data", "pg_hba.conf"),
    `host all ${user} all scram-sha-256`
  ])

/** Starts a server with a directory of its own. Its processes are ended and the directory removed with the scope. */
export const startServer = Effect.fnUntraced(function* ({
  lockedUser,
  settings
}: OwnServerOptions = {}): Effect.fn.Return<OwnServer, ServerError, Scope.Scope> {
  const directory = yield* serverDirectory
  if (lockedUser !== undefined) yield* lock(directory, lockedUser)
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
    // the memory that its processes share stays behind if it is killed and not started again
    launch: (port) => launch(program("postgres"), ["-p", String(port), ...args], { owner, quit: "SIGQUIT" }),
    ready: /ready to accept connections/,
    portTaken: "could not bind",
    stop: "SIGINT"
  })

  const urlOf = urlAt(server.port)
  const url = urlOf({})
  const one = (statement: string) => query(url, statement)
  const READ_ONLY = "default_transaction_read_only"
  return {
    ...server,
    url,
    urlOf,
    setReadOnly: (on) =>
      Effect.andThen(
        one(on ? `ALTER SYSTEM SET ${READ_ONLY} = on` : `ALTER SYSTEM RESET ${READ_ONLY}`),
        one("SELECT pg_reload_conf()")
      ),
    query: one,
    script: (text) => Effect.asVoid(runWith(text, program("psql"), ["-v", "ON_ERROR_STOP=1", "-q", url])),
    cut: (condition = "true") =>
      Effect.map(
        one(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND (${condition})`
        ),
        (rows) => rows.length
      )
  }
})

// #endregion

// #region Stores

/** Both services. */
export type Store = Context.Context<Backend.Backend | Broker.Broker>

/** How a process of its own reaches the server. */
export interface StoreOptions extends SqlStore.Options {
  readonly client?: Partial<PgClient.PgPoolConfig> | undefined
}

/** A client with a pool of its own. */
export const clientOf = (
  url: string,
  config?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  PgClient.layer({ url: Redacted.make(url), maxConnections: 8, ...config })

/** Opens a store as a process of its own would. */
export const openStore = (
  { url }: Pick<OwnServer, "url">,
  { client, ...options }: StoreOptions = {}
): Effect.Effect<Store, Backend.BackendError | SqlError.SqlError, Scope.Scope> =>
  Layer.build(Layer.provide(SqlStore.layer(options), clientOf(url, client)))

// #endregion

// #region Suites

/** A suite in which tests start servers of their own. */
export const describeWithOwnPostgres = (name: string, body: () => void): void => {
  const missing =
    programs === undefined
      ? `There is no initdb below ${ROOT}: install PostgreSQL to run servers of one's own.`
      : owner === undefined
        ? "There is no user postgres, and a server refuses to run as root."
        : undefined
  describeUnless(missing, name, body)
}

/** A test in real time, on a server of its own. */
export const testWithServer = testOn(startServer, 60_000)

// #endregion
