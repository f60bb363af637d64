/** MariaDB servers that a test starts, stops, kills and freezes itself, and stores over them. */
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

/** How a server is started. */
export interface OwnServerOptions {
  /** Settings of `my.cnf`, such as `{ "max-connections": "5" }`. */
  readonly settings?: Readonly<Record<string, string>> | undefined
}

// #region Programs

const SERVER = "mariadbd"
const INSTALLER = "mariadb-install-db"

/** The installer comes with the server. */
const installed = spawnSync(SERVER, ["--version"]).status === 0

/** `undefined`: there is nobody whom it can run as. */
const owner = serverUser("mysql")

// #endregion

// #region Data

/** As small as it may be. */
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

/** A server removes what others have in their directory for temporary tables when it starts. */
const withTemporary = (directory: string) => ({
  owner,
  env: { ...process.env, TMPDIR: directory }
})

/** The directory of a new server with the database `test`: made once, and copied. It is removed when this process ends. */
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

/** Starts a server with a directory of its own. Its processes are ended and the directory removed with the scope. */
export const startServer = Effect.fnUntraced(function* ({
  settings
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
    launch: (port) => launch(SERVER, [...args, `--port=${port}`], withTemporary(directory)),
    ready: /ready for connections/,
    portTaken: "Can't start server: Bind on TCP/IP port"
  })
  return { ...server, url: `mysql://root@127.0.0.1:${server.port}/test` }
})

// #endregion

// #region Stores

/** Opens a store as a process of its own would. */
export const openStore = (
  { url }: Pick<OwnServer, "url">,
  options?: SqlStore.Options
): Effect.Effect<Store, unknown, Scope.Scope> =>
  Layer.build(Layer.provide(SqlStore.layer(options), MysqlClient.layer({ url, maxConnections: 8 })))

// #endregion

// #region Suites

/** A suite in which tests start servers of their own. */
export const describeWithOwnMariadb = (name: string, body: () => void): void => {
  const missing = !installed
    ? `There is no ${SERVER} on the PATH: install MariaDB to run servers of one's own.`
    : owner === undefined
      ? "There is no user mysql, and a server is not run as root."
      : undefined
  describeUnless(missing, name, body)
}

/** A test in real time, on a server of its own. */
export const testWithServer = testOn(startServer, 60_000)

// #endregion
