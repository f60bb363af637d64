/** PostgreSQL servers that a test starts, stops, freezes and locks itself, and stores over them. */
import { type ChildProcess, spawn, spawnSync, type SpawnSyncReturns } from "node:child_process"
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { connect, createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { PgClient } from "@effect/sql-pg"
import { afterAll, it } from "@effect/vitest"
import type { Backend, Broker } from "chicory"
import { SqlStore } from "chicory/sql"
import { type Context, Effect, Layer, Logger, Redacted, Schema, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { describeUnless } from "../support/describeUnless.ts"
import { serverUser } from "../support/serverUser.ts"

/** What went wrong with a server of one's own. */
export class OwnServerError extends Schema.TaggedError<OwnServerError>()("OwnServerError", {
  message: Schema.String
}) {}

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

/** A server of one's own, with an empty database `test`. */
export interface OwnServer {
  readonly port: number
  /** Of the superuser, who needs no password. */
  readonly url: string
  readonly urlOf: (login: Login) => string
  /** Ends at once, as by a crash, and waits until it has ended: what was not committed is gone. */
  readonly stop: Effect.Effect<void>
  /** Ends in order, whoever is connected, and waits until it has ended. */
  readonly stopGracefully: Effect.Effect<void>
  /** Starts it again, with the port and the data it had, and waits until it accepts connections. */
  readonly start: Effect.Effect<void, OwnServerError>
  /** Freezes all its processes: connections stay, and nothing is answered. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Whether transactions that begin from now on may write. */
  readonly setReadOnly: (on: boolean) => Effect.Effect<void, SqlError.SqlError>
  /** Runs a statement as the superuser, on a connection of its own. */
  readonly query: (statement: string) => Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError>
  /** Runs a script as the superuser, as `psql` does. */
  readonly script: (text: string) => Effect.Effect<void>
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

const told = ({ error, status, stderr }: SpawnSyncReturns<string>): void => {
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(stderr)
}

/** Runs a program to its end, as the owner. */
const run = (file: string, args: ReadonlyArray<string>, input?: string): void =>
  told(spawnSync(file, args, { ...owner, cwd: tmpdir(), encoding: "utf8", input }))

const program = (name: string): string => join(programs ?? ROOT, name)

// #endregion

// #region Directories

const directories = new Set<string>()

const makeDirectory = (): string => {
  const directory = mkdtempSync(join(tmpdir(), "chicory-postgres-"))
  directories.add(directory)
  if (owner?.uid !== undefined && owner.gid !== undefined) chownSync(directory, owner.uid, owner.gid)
  return directory
}

const removeDirectory = (directory: string): void => {
  rmSync(directory, { recursive: true, force: true })
  directories.delete(directory)
}

let template: string | undefined

const removeTemplate = (): void => {
  if (template !== undefined) removeDirectory(dirname(template))
  template = undefined
}

/** The data of a new server with the database `test`: made once for a suite, and copied. */
const templateData = (): string => {
  if (template === undefined) {
    const directory = makeDirectory()
    const data = join(directory, "data")
    run(program("initdb"), [
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
    run(program("postgres"), ["--single", "-D", data, "-F", "postgres"], "CREATE DATABASE test\n")
    template = data
  }
  return template
}

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = makeDirectory()
    run("cp", ["-R", templateData(), join(directory, "data")])
    return directory
  }),
  (directory) => Effect.sync(() => removeDirectory(directory))
)

// #endregion

// #region Processes

// below the ports that connections are given, and apart from those of the Redis servers
const PORTS = { first: 30_000, count: 2_000 }

const isFree = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen(port, "127.0.0.1", () => probe.close(() => resume(Effect.succeed(true))))
  })

const freePort = Effect.gen(function* () {
  while (true) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count)
    if (yield* isFree(port)) return port
  }
})

/** The processes of a server: each of its connections is one of its own, and a group of its own. */
const processesOf = ({ pid }: ChildProcess): ReadonlyArray<number> => {
  const { stdout } = spawnSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" })
  const children = stdout.split("\n").flatMap((line) => {
    const [child, parent] = line.trim().split(/\s+/).map(Number)
    return child !== undefined && parent === pid ? [child] : []
  })
  return pid === undefined ? [] : [pid, ...children]
}

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name)
  } catch {
    // it has ended
  }
}

/** The first one makes the others: it is stopped before them. */
const pauseAll = (child: ChildProcess): void => {
  if (child.pid !== undefined) signal(child.pid, "SIGSTOP")
  for (const pid of processesOf(child)) signal(pid, "SIGSTOP")
}

const resumeAll = (child: ChildProcess): void => {
  for (const pid of processesOf(child)) signal(pid, "SIGCONT")
}

const running = new Set<ChildProcess>()
// A test run that is cut short runs no finalizers. Vitest ends its processes by this signal.
process.once("SIGTERM", () => process.exit())
process.once("exit", () => {
  for (const child of running) {
    resumeAll(child)
    child.kill("SIGQUIT")
  }
  directories.forEach(removeDirectory)
})

const ended = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (!running.has(child)) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
  })

const end = (child: ChildProcess, name: NodeJS.Signals) =>
  Effect.andThen(
    Effect.sync(() => {
      if (!running.has(child)) return
      resumeAll(child)
      child.kill(name)
    }),
    ended(child)
  )

const failed = (message: string): OwnServerError => new OwnServerError({ message })

/** Waits until the server accepts connections, or has ended. */
const accepts = (child: ChildProcess) =>
  Effect.callback<void, OwnServerError>((resume) => {
    let output = ""
    child.stderr?.on("data", (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-4000)
      if (output.includes("ready to accept connections")) resume(Effect.void)
    })
    child.once("error", ({ message }) => resume(Effect.fail(failed(message))))
    child.once("exit", () => resume(Effect.fail(failed(`postgres has ended: ${output}`))))
  })

const launch = (args: ReadonlyArray<string>): ChildProcess => {
  const child = spawn(program("postgres"), args, {
    ...owner,
    cwd: tmpdir(),
    stdio: ["ignore", "ignore", "pipe"]
  })
  if (child.pid !== undefined) running.add(child)
  child.once("exit", () => running.delete(child))
  return child
}

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

const lock = (directory: string, user: string): void =>
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
}: OwnServerOptions = {}): Effect.fn.Return<OwnServer, OwnServerError, Scope.Scope> {
  const directory = yield* temporaryDirectory
  if (lockedUser !== undefined) yield* Effect.sync(() => lock(directory, lockedUser))
  const args = [
    "-D",
    join(directory, "data"),
    ...Object.entries({ ...SETTINGS, unix_socket_directories: directory, ...settings }).flatMap(
      ([name, value]) => ["-c", `${name}=${value}`]
    )
  ]
  let child: ChildProcess | undefined
  const withChild = (use: (child: ChildProcess) => Effect.Effect<void>) =>
    Effect.suspend(() => (child === undefined ? Effect.void : use(child)))
  const stop = withChild((child) => end(child, "SIGQUIT"))
  yield* Effect.addFinalizer(() => stop)

  const startAt = (port: number) =>
    Effect.suspend(() => {
      if (child !== undefined && running.has(child)) return Effect.void
      child = launch(["-p", String(port), ...args])
      return accepts(child)
    })
  const port = yield* Effect.flatMap(freePort, (port) => Effect.as(startAt(port), port)).pipe(
    // another one was faster
    Effect.retry({ times: 9, while: ({ message }) => message.includes("could not bind") })
  )

  const urlOf = urlAt(port)
  const url = urlOf({})
  const one = (statement: string) => query(url, statement)
  const READ_ONLY = "default_transaction_read_only"
  return {
    port,
    url,
    urlOf,
    stop,
    stopGracefully: withChild((child) => end(child, "SIGINT")),
    start: startAt(port),
    pause: withChild((child) => Effect.sync(() => pauseAll(child))),
    resume: withChild((child) => Effect.sync(() => resumeAll(child))),
    setReadOnly: (on) =>
      Effect.andThen(
        one(on ? `ALTER SYSTEM SET ${READ_ONLY} = on` : `ALTER SYSTEM RESET ${READ_ONLY}`),
        one("SELECT pg_reload_conf()")
      ),
    query: one,
    script: (text) => Effect.sync(() => run(program("psql"), ["-v", "ON_ERROR_STOP=1", "-q", url], text)),
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

// #region Ways to a server

/** A way to a server that may fall silent, as networks do. */
export interface Way {
  /** Of the superuser, by this way. */
  readonly url: string
  /** The connections that there are carry nothing any more, and nobody is told; those to come do. */
  readonly silence: Effect.Effect<void>
  /** Ends all connections, as a network does at long last. */
  readonly cut: Effect.Effect<void>
}

/** Makes a way to a server; it ends with the scope. */
export const wayTo = (server: OwnServer): Effect.Effect<Way, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = new Set<Socket>()
    const carry = (from: Socket, to: Socket): void => {
      sockets.add(from)
      from.on("data", (chunk) => to.write(chunk))
      from.on("error", () => to.destroy())
      from.on("close", () => {
        sockets.delete(from)
        to.destroy()
      })
    }
    const cut = Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
    })
    const way = createServer((near) => {
      const far = connect(server.port, "127.0.0.1")
      carry(near, far)
      carry(far, near)
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        way.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.andThen(
          Effect.sync(() => way.close()),
          cut
        )
    )
    const address = way.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    return {
      url: urlAt(port)({}),
      silence: Effect.sync(() => {
        for (const socket of sockets) {
          socket.removeAllListeners("data").removeAllListeners("close")
          socket.pause()
        }
      }),
      cut
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
  describeUnless(missing, name, () => {
    afterAll(removeTemplate)
    body()
  })
}

/** A test in real time, on a server of its own. However it ends, the server is there when its clients are closed. */
export const testWithServer = <E>(
  name: string,
  options: OwnServerOptions,
  body: (server: OwnServer) => Effect.Effect<void, E, Scope.Scope>
): void =>
  it.live(
    name,
    () =>
      Effect.gen(function* () {
        const server = yield* startServer(options)
        const restored = Effect.ignore(Effect.andThen(server.resume, server.start))
        // the warnings of lost connections are expected
        yield* Effect.scoped(Effect.ensuring(body(server), restored)).pipe(Effect.provide(Logger.layer([])))
      }),
    30_000
  )

// #endregion
