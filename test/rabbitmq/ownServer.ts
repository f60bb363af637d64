/** RabbitMQ servers that a test starts, stops, freezes and alarms itself. */
import { type ChildProcess, spawn } from "node:child_process"
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { Effect, Logger, Schedule, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import { serverUser } from "../support/serverUser.ts"
import { openConnection, ServerError } from "./server.ts"

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

/** A server of one's own. */
export interface OwnServer {
  readonly port: number
  /** Of the administrator `guest`. */
  readonly url: string
  /** Ends in order, whoever is connected, and waits until it has ended. */
  readonly stop: Effect.Effect<void>
  /** Ends at once, as by a crash, and waits until it has ended. */
  readonly kill: Effect.Effect<void>
  /**
   * Has it write down which quorum queues there are and who leads them, as it does of itself seconds later: a crash
   * before that loses a queue that was declared shortly before, with messages that are confirmed.
   */
  readonly settle: Effect.Effect<void, ServerError>
  /** Starts it again, with the port and the data it had, and waits until it accepts connections. */
  readonly start: Effect.Effect<void, ServerError>
  /** Stops it and starts it again. */
  readonly restart: Effect.Effect<void, ServerError>
  /** Freezes the process: its connections stay, and nothing is answered. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Closes all connections that there are, with a reason that the clients are told. */
  readonly closeConnections: (reason: string) => Effect.Effect<void, ServerError>
  /** Lets it believe that its memory is used up, until `calm` or its end: who publishes is blocked. */
  readonly alarm: Effect.Effect<void, ServerError>
  readonly calm: Effect.Effect<void, ServerError>
  /** What `rabbitmqctl` prints for this server. */
  readonly ctl: (...args: ReadonlyArray<string>) => Effect.Effect<string, ServerError>
}

const failed = (message: string): ServerError => new ServerError({ message })

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

const directories = new Set<string>()

const makeDirectory = ({ config = [] }: OwnServerOptions): string => {
  const directory = mkdtempSync(join(tmpdir(), "chicory-rabbitmq-"))
  directories.add(directory)
  if (owner?.uid !== undefined && owner.gid !== undefined) chownSync(directory, owner.uid, owner.gid)
  // the server's own one, which says what a configuration may hold, and no plugin
  mkdirSync(join(directory, "plugins"))
  const own = applications.find((application) => application.includes("/rabbit-"))
  if (own !== undefined) symlinkSync(own, join(directory, "plugins", "rabbit"))
  if (config.length > 0) writeFileSync(join(directory, "rabbitmq.conf"), `${config.join("\n")}\n`)
  return directory
}

/** A server that was killed just now may still write. */
const removeDirectory = (directory: string): void => {
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
  directories.delete(directory)
}

// #endregion

// #region Processes

// below the ports that connections are given, and apart from those of the other servers of tests
const PORTS = { first: 7_000, count: 1_400 }
const DISTRIBUTION_OFFSET = 1_400

const isFree = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen(port, "127.0.0.1", () => probe.close(() => resume(Effect.succeed(true))))
  })

const freePort = Effect.gen(function* () {
  while (true) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count)
    if ((yield* isFree(port)) && (yield* isFree(port + DISTRIBUTION_OFFSET))) return port
  }
})

const running = new Set<ChildProcess>()
// A test run that is cut short runs no finalizers. Vitest ends its processes by this signal.
process.once("SIGTERM", () => process.exit())
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL")
  directories.forEach(removeDirectory)
})

/** Starts a program as the owner, with no environment but the given one. */
const launch = (file: string, args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) => {
  const child = spawn(file, args, {
    ...owner,
    cwd: tmpdir(),
    env: { PATH: process.env["PATH"], LANG: "C.UTF-8", ...env },
    stdio: ["pipe", "pipe", "pipe"]
  })
  if (child.pid !== undefined) running.add(child)
  // not "exit": its helpers, which end after it, have its output open as well
  child.once("close", () => running.delete(child))
  return child
}

/** Waits until a program and the helpers it has started have ended. */
const ended = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (!running.has(child)) return resume(Effect.void)
    child.once("close", () => resume(Effect.void))
  })

const end = (child: ChildProcess, name: NodeJS.Signals) =>
  Effect.andThen(
    Effect.sync(() => {
      child.kill(name)
      // one that is frozen does not see any other signal
      child.kill("SIGCONT")
    }),
    ended(child)
  )

/** Waits until the server is there, or has ended. */
const booted = (child: ChildProcess) =>
  Effect.callback<void, ServerError>((resume) => {
    let output = ""
    const onOutput = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-8000)
      if (/ completed with \d+ plugins/.test(output)) resume(Effect.void)
    }
    child.stdout?.on("data", onOutput)
    child.stderr?.on("data", onOutput)
    child.once("error", ({ message }) => resume(Effect.fail(failed(message))))
    child.once("close", () => resume(Effect.fail(failed(`rabbitmq has ended: ${output}`))))
  })

/** Runs a program to its end, and gives what it has printed. */
const run = (...[file, args, env]: Parameters<typeof launch>): Effect.Effect<string, ServerError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => launch(file, args, env)),
    (child) =>
      Effect.callback<string, ServerError>((resume) => {
        let output = ""
        let errors = ""
        child.stdout?.on("data", (chunk: Buffer) => (output += chunk.toString()))
        child.stderr?.on("data", (chunk: Buffer) => (errors += chunk.toString()))
        child.once("error", ({ message }) => resume(Effect.fail(failed(message))))
        child.once("close", (code) =>
          resume(code === 0 ? Effect.succeed(output) : Effect.fail(failed(errors + output)))
        )
      }),
    (child) => (running.has(child) ? end(child, "SIGKILL") : Effect.void)
  )

// #endregion

// #region Servers

/**
 * No `epmd`: a node is known by its port. None is started, and no node is entered in one that runs:
 * nothing listens at port 1.
 */
const NO_EPMD = { ERL_EPMD_PORT: "1", ERL_FLAGS: "-start_epmd false" }

/** Ends the server when the test's process has ended, however that was: its input is closed then. */
const GUARD = "spawn(fun() -> io:get_line([]), halt(137, [{flush, false}]) end)."

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
    ["-eval", GUARD],
    ["-s", "rabbit", "boot"],
    // an interrupt of the whole test run is not meant for it; and it does not wait for work by spinning
    ["+B", "i", "+W", "w", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
    ["-syslog", "logger", "[]", "syslog_error_logger", "false"],
    ["-rabbit", "tcp_listeners", `[{"127.0.0.1",${port}}]`],
    timeout
  ]
  return launch("erl", args.flat(), {
    ...NO_EPMD,
    HOME: directory,
    ERL_CRASH_DUMP_SECONDS: "0",
    RABBITMQ_NODENAME: name,
    RABBITMQ_DIST_PORT: String(distributionPort),
    RABBITMQ_CONF_ENV_FILE: "/dev/null",
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
  })
}

const ctl = ({ directory, distributionPort, name }: Node, args: ReadonlyArray<string>) =>
  run(join(home ?? ROOT, "sbin", "rabbitmqctl"), ["-n", name, ...args], {
    ...NO_EPMD,
    ERL_FLAGS: `${NO_EPMD.ERL_FLAGS} -erl_epmd_port ${distributionPort} -dist_listen false`,
    HOME: directory,
    RABBITMQ_CONF_ENV_FILE: "/dev/null"
  })

/** Starts a server with a directory of its own. Its processes are ended and the directory removed with the scope. */
export const startServer = Effect.fnUntraced(function* (
  options: OwnServerOptions = {}
): Effect.fn.Return<OwnServer, ServerError, Scope.Scope> {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => makeDirectory(options)),
    (directory) => Effect.sync(() => removeDirectory(directory))
  )
  let child: ChildProcess | undefined
  const withChild = (use: (child: ChildProcess) => Effect.Effect<void>) =>
    Effect.suspend(() => (child === undefined ? Effect.void : use(child)))
  const kill = withChild((child) => end(child, "SIGKILL"))
  yield* Effect.addFinalizer(() => kill)

  const name = `chicory-test-${crypto.randomUUID().slice(0, 8)}@localhost`
  const startAt = (port: number) =>
    Effect.suspend(() => {
      if (child !== undefined && running.has(child)) return Effect.void
      child = launchServer({ directory, name, port, distributionPort: port + DISTRIBUTION_OFFSET }, options)
      return booted(child)
    })
  const port = yield* Effect.flatMap(freePort, (port) => Effect.as(startAt(port), port)).pipe(
    // another one was faster
    Effect.retry({ times: 9, while: ({ message }) => message.includes("eaddrinuse") })
  )

  const url = `amqp://guest:guest@127.0.0.1:${port}`
  const answers = Effect.asVoid(Effect.scoped(openConnection(url)))
  yield* answers
  const node = { directory, name, port, distributionPort: port + DISTRIBUTION_OFFSET }
  const call = (...args: ReadonlyArray<string>) => ctl(node, args)
  const stop = withChild((child) => end(child, "SIGTERM"))
  const start = Effect.andThen(startAt(port), answers)

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
        orElse: () => Effect.fail(failed(`The alarm does not ${alarmed ? "begin" : "end"}`))
      }),
      Effect.asVoid
    )
  return {
    port,
    url,
    stop,
    kill,
    settle: Effect.asVoid(call("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")),
    start,
    restart: Effect.andThen(stop, start),
    freeze: withChild((child) => Effect.sync(() => child.kill("SIGSTOP"))),
    thaw: withChild((child) => Effect.sync(() => child.kill("SIGCONT"))),
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
        const restored = Effect.ignore(Effect.andThen(server.thaw, server.start))
        // the warnings of lost connections are expected
        yield* Effect.scoped(Effect.ensuring(body(server), restored)).pipe(Effect.provide(Logger.layer([])))
      }),
    60_000
  )

// #endregion
