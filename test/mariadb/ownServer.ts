/** MariaDB servers that a test starts, stops, kills and freezes, and stores on them. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { SqlStore } from "chicory/sql"
import { Effect, Layer, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import {
  launch,
  makeDirectory,
  type OwnServer,
  PORTS,
  run,
  type ServerError,
  startProgram,
  temporaryDirectory
} from "../support/ownServers.ts"
import { serverUser } from "../support/serverUser.ts"
import type { Store } from "../support/storeFixture.ts"
import { testOn } from "../support/testOn.ts"
import * as MysqlClient from "./MysqlClient.ts"

/** Options of a server. */
export interface OwnServerOptions {
  /** Settings of `my.cnf`, such as `{ "max-connections": "5" }`. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The time zone of its system, such as `Europe/Berlin`. Default: that of this process. */
  readonly timeZone?: string | undefined
}

// #region Programs

const SERVER = "mariadbd"
const INSTALLER = "mariadb-install-db"

/** Whether the server is installed; its package contains the installer. */
const installed = spawnSync(SERVER, ["--version"]).status === 0

/** The user that runs the server; `undefined` if there is none. */
const owner = serverUser("mysql")

// #endregion

// #region Data

/** Settings that keep the server small. */
const SETTINGS = {
  "innodb-buffer-pool-size": "16M",
  "innodb-log-file-size": "8M",
  "innodb-log-buffer-size": "2M",
  "innodb-use-native-aio": "0",
  "aria-pagecache-buffer-size": "1M",
  "key-buffer-size": "64K",
  "query-cache-size": "0",
  "performance-schema": "OFF"
}

/** Sets the directory of temporary files: at its start, a server deletes other servers' files in a shared one. */
const withTemporary = (directory: string, timeZone = process.env["TZ"]) => ({
  owner,
  env: { ...process.env, TMPDIR: directory, ...(timeZone === undefined ? {} : { TZ: timeZone }) }
})

/** The directory of a server with the database `test`, which is made once and copied. Removed when this process ends. */
const templateDirectory = Effect.runSync(
  Effect.cached(
    Effect.gen(function* () {
      const directory = yield* Effect.sync(() => makeDirectory("mariadb", owner))
      yield* run(
        INSTALLER,
        [
          "--no-defaults",
          `--datadir=${join(directory, "data")}`,
          "--auth-root-authentication-method=normal",
          "--skip-name-resolve",
          `--innodb-log-file-size=${SETTINGS["innodb-log-file-size"]}`
        ],
        withTemporary(directory)
      )
      return directory
    })
  )
)

// #endregion

// #region Servers

/** Starts a server in its own directory. Its processes are ended and the directory is removed with the scope. */
export const startServer = Effect.fnUntraced(function* ({
  settings,
  timeZone
}: OwnServerOptions = {}): Effect.fn.Return<OwnServer, ServerError, Scope.Scope> {
  const from = yield* templateDirectory
  const directory = yield* temporaryDirectory("mariadb", owner)
  yield* run("cp", ["-R", join(from, "data"), directory], { owner })
  const args = [
    "--no-defaults",
    `--datadir=${join(directory, "data")}`,
    `--socket=${join(directory, "socket")}`,
    `--pid-file=${join(directory, "pid")}`,
    "--skip-networking=0",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    ...Object.entries({ ...SETTINGS, ...settings }).map(([name, value]) => `--${name}=${value}`)
  ]
  const server = yield* startProgram({
    name: SERVER,
    ports: PORTS.mariadb,
    launch: (port) => launch(SERVER, [...args, `--port=${port}`], withTemporary(directory, timeZone)),
    ready: /ready for connections/,
    portTaken: "Can't start server: Bind on TCP/IP port"
  })
  return { ...server, url: `mysql://root@127.0.0.1:${server.port}/test` }
})

// #endregion

// #region Stores

/** Opens a store with its own connections, as another process would. */
export const openStore = (
  { url }: Pick<OwnServer, "url">,
  options?: SqlStore.Options
): Effect.Effect<Store, unknown, Scope.Scope> =>
  Layer.build(Layer.provide(SqlStore.layer(options), MysqlClient.layer({ url, maxConnections: 8 })))

// #endregion

// #region Suites

/** Describes a suite whose tests start their own servers. */
export const describeWithOwnMariadb = (name: string, body: () => void): void => {
  const missing = !installed
    ? `There is no ${SERVER} on the PATH: install MariaDB to run the servers of tests.`
    : owner === undefined
      ? "There is no user mysql, and the server does not run as root."
      : undefined
  describeUnless(missing, name, body)
}

/** Adds a test in real time, on its own server. */
export const testWithServer = testOn(startServer, 60_000)

// #endregion
