/** RabbitMQ servers that a test starts, stops, freezes and alarms itself. */
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Schedule, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import {
  toServerError,
  launch,
  type OwnServer as AnyServer,
  PORTS,
  run,
  type ServerError,
  startProgram,
  temporaryDirectory
} from "../support/ownServers.ts"
import { serverUser } from "../support/serverUser.ts"
import { testOn } from "../support/testOn.ts"
import { openConnection } from "./server.ts"

/** How a server is started. */
export interface OwnServerOptions {
  /**
   * For how long a consumer may hold a message that it has not acknowledged; then its channel is closed, within a
   * further second. Default: half an hour.
   */
  readonly consumerTimeoutMillis?: number | undefined
  /** Lines of `rabbitmq.conf`, such as `["heartbeat = 1"]`. A start takes longer if there are any. */
  readonly config?: ReadonlyArray<string> | undefined
}

/** A server of one's own. Its URL is that of the administrator `guest`. */
export interface OwnServer extends AnyServer {
  /**
   * Has it write down which quorum queues there are and who leads them, as it does of itself seconds later: a crash
   * before that loses a queue that was declared shortly before, with messages that are confirmed.
   */
  readonly settle: Effect.Effect<void, ServerError>
  /** Stops it and starts it again. */
  readonly restart: Effect.Effect<void, ServerError>
  /** Closes all connections that there are, with a reason that the clients are told. */
  readonly closeConnections: (reason: string) => Effect.Effect<void, ServerError>
  /** Lets it believe that its memory is used up, until `calm` or its end: who publishes is blocked. */
  readonly alarm: Effect.Effect<void, ServerError>
  readonly calm: Effect.Effect<void, ServerError>
  /** What `rabbitmqctl` prints for this server. */
  readonly ctl: (...args: ReadonlyArray<string>) => Effect.Effect<string, ServerError>
}

// #region Programs

const ROOT = "/usr/lib/rabbitmq/lib"

/** The directory of the newest version. */
const home = existsSync(ROOT)
  ? readdirSync(ROOT)
      .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
      .map((version) => join(ROOT, version))
      .find((directory) => existsSync(join(directory, "plugins")))
  : undefined

/**
 * The applications that the server is made of. To look for a module in those of the plugins as well takes a second and
 * more of a start.
 */
const applications =
  home === undefined
    ? []
    : readdirSync(join(home, "plugins"))
        .filter((name) => !name.startsWith("rabbitmq_") || name.startsWith("rabbitmq_prelaunch-"))
        .map((name) => join(home, "plugins", name))
        .filter((directory) => existsSync(join(directory, "ebin")))

/** `undefined`: there is nobody whom it can run as. */
const owner = serverUser("rabbitmq")

// #endregion

// #region Directories

/** What a server finds in its directory. */
const fill = (directory: string, { config = [] }: OwnServerOptions): void => {
  // the server's own one, which says what a configuration may hold, and no plugin
  mkdirSync(join(directory, "plugins"))
  const own = applications.find((application) => application.includes("/rabbit-"))
  if (own !== undefined) symlinkSync(own, join(directory, "plugins", "rabbit"))
  if (config.length > 0) writeFileSync(join(directory, "rabbitmq.conf"), `${config.join("\n")}\n`)
}

// #endregion

// #region Servers

/**
 * No `epmd`: a node is known by its port. None is started, and no node is entered in one that runs:
 * nothing listens at port 1.
 */
const NO_EPMD = { ERL_EPMD_PORT: "1", ERL_FLAGS: "-start_epmd false" }

/** Nothing else of this process's environment counts. */
const ENVIRONMENT = {
  PATH: process.env["PATH"],
  LANG: "C.UTF-8",
  RABBITMQ_CONF_ENV_FILE: "/dev/null",
  ...NO_EPMD
}

/** A node: the place and the names of a server. */
interface Node {
  readonly directory: string
  readonly name: string
  readonly port: number
  readonly distributionPort: number
}

/**
 * Starts the program that `rabbitmq-server` starts in the end. What that one does before, and what is done to settle the
 * node's name, takes longer than all that follows.
 */
const launchServer = (
  { directory, distributionPort, name, port }: Node,
  { consumerTimeoutMillis }: OwnServerOptions
) => {
  const timeout =
    consumerTimeoutMillis === undefined
      ? []
      : // a channel looks at the time only when it ticks, which no configuration file says
        ["-rabbit", "consumer_timeout", String(consumerTimeoutMillis), "channel_tick_interval", "1000"]
  const args = [
    ["-pa", ...applications.map((application) => join(application, "ebin"))],
    ["-boot", "start_sasl"],
    ["-sname", name],
    ["-erl_epmd_port", String(distributionPort)],
    ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "prevent_overlapping_partitions", "false"],
    ["-noshell"],
    ["-s", "rabbit", "boot"],
    // an interrupt of the whole test run is not meant for it; and it does not wait for work by spinning
    ["+B", "i", "+W", "w", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
    ["-syslog", "logger", "[]", "syslog_error_logger", "false"],
    ["-rabbit", "tcp_listeners", `[{"127.0.0.1",${port}}]`],
    timeout
  ]
  const env = {
    ...ENVIRONMENT,
    HOME: directory,
    ERL_CRASH_DUMP_SECONDS: "0",
    RABBITMQ_NODENAME: name,
    RABBITMQ_DIST_PORT: String(distributionPort),
    RABBITMQ_CONFIG_FILE: join(directory, "rabbitmq.conf"),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(directory, "advanced.config"),
    RABBITMQ_GENERATED_CONFIG_DIR: join(directory, "config"),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(directory, "enabled_plugins"),
    RABBITMQ_PLUGINS_DIR: join(directory, "plugins"),
    RABBITMQ_MNESIA_BASE: join(directory, "mnesia"),
    RABBITMQ_PID_FILE: join(directory, "pid"),
    RABBITMQ_LOG_BASE: join(directory, "log"),
    RABBITMQ_LOGS: "-",
    RABBITMQ_LOG: "error"
  }
  return launch("erl", args.flat(), { owner, env })
}

const ctl = ({ directory, distributionPort, name }: Node, args: ReadonlyArray<string>) =>
  run(join(home ?? ROOT, "sbin", "rabbitmqctl"), ["-n", name, ...args], {
    owner,
    env: {
      ...ENVIRONMENT,
      ERL_FLAGS: `${ENVIRONMENT.ERL_FLAGS} -erl_epmd_port ${distributionPort} -dist_listen false`,
      HOME: directory
    }
  })

/** Starts a server with a directory of its own. Its processes are ended and the directory removed with the scope. */
export const startServer = Effect.fnUntraced(function* (
  options: OwnServerOptions = {}
): Effect.fn.Return<OwnServer, ServerError, Scope.Scope> {
  const directory = yield* temporaryDirectory("rabbitmq", owner)
  yield* Effect.sync(() => fill(directory, options))
  const name = `chicory-test-${crypto.randomUUID().slice(0, 8)}@localhost`
  const nodeAt = (port: number): Node => ({
    directory,
    name,
    port,
    distributionPort: port + PORTS.rabbitmq.second
  })
  const urlAt = (port: number) => `amqp://guest:guest@127.0.0.1:${port}`
  const server = yield* startProgram({
    name: "rabbitmq",
    ports: PORTS.rabbitmq,
    launch: (port) => launchServer(nodeAt(port), options),
    ready: / completed with \d+ plugins/,
    portTaken: "eaddrinuse",
    untilAnswers: (port) => Effect.asVoid(Effect.scoped(openConnection(urlAt(port))))
  })
  const node = nodeAt(server.port)
  const call = (...args: ReadonlyArray<string>) => ctl(node, args)

  /** Sets how much memory it may use, and waits until that has its effect. */
  const setMemory = (limit: string, alarmed: boolean) =>
    call(
      "eval",
      `vm_memory_monitor:set_vm_memory_high_watermark(${limit}), lists:keymember({resource_limit, memory, node()}, 1, rabbit_alarm:get_alarms()).`
    ).pipe(
      Effect.repeat({
        schedule: Schedule.spaced("20 millis"),
        until: (output) => output.trim() === String(alarmed)
      }),
      Effect.timeoutOrElse({
        duration: "20 seconds",
        orElse: () => Effect.fail(toServerError(`The alarm does not ${alarmed ? "begin" : "end"}`))
      }),
      Effect.asVoid
    )
  return {
    ...server,
    url: urlAt(server.port),
    settle: Effect.asVoid(call("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")),
    restart: Effect.andThen(server.stop, server.start),
    closeConnections: (reason) => Effect.asVoid(call("close_all_connections", reason)),
    alarm: setMemory("{absolute, 1}", true),
    calm: setMemory("0.4", false),
    ctl: call
  }
})

// #endregion

// #region Suites

/** A suite in which tests start servers of their own. */
export const describeWithOwnRabbit = (name: string, body: () => void): void => {
  const missing =
    home === undefined
      ? `There is no server below ${ROOT}: run \`apt-get install rabbitmq-server\` to run servers of one's own.`
      : owner === undefined
        ? "There is no user rabbitmq, and a server is not run as root."
        : undefined
  describeUnless(missing, name, body)
}

/** A test in real time, on a server of its own. */
export const testWithServer = testOn(startServer, 60_000)

// #endregion
