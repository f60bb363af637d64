/** RabbitMQ servers that a test starts, stops, freezes, and puts under a memory alarm. */
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs"
import { rm } from "node:fs/promises"
import { connect } from "node:net"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import {
  launch,
  type OwnServer as AnyServer,
  PORTS,
  ServerError,
  startProgram,
  temporaryDirectory,
  toServerError
} from "../support/ownServers.ts"
import { serverUser } from "../support/serverUser.ts"
import { testOn } from "../support/testOn.ts"
import { openConnection } from "./server.ts"

/** Options of a server. */
export interface OwnServerOptions {
  /**
   * The server's `consumer_timeout`: after it, the channel of a consumer with an unacked message is closed within one more
   * second. Default 30 minutes.
   */
  readonly consumerTimeoutMillis?: number | undefined
  /** Lines of `rabbitmq.conf`, such as `["heartbeat = 1"]`. Any line makes a start slower. */
  readonly config?: ReadonlyArray<string> | undefined
}

/** A server of one test. Its URL is that of the administrator `guest`. */
export interface OwnServer extends AnyServer {
  /**
   * Makes the server write its registry of quorum queues to disk, which it does by itself seconds later. A crash before
   * that loses a queue that was declared shortly before, with its confirmed messages.
   */
  readonly settle: Effect.Effect<void, ServerError>
  /** Stops the server and starts it again. */
  readonly restart: Effect.Effect<void, ServerError>
  /** The same, without its data. */
  readonly restartEmpty: Effect.Effect<void, ServerError>
  /** Closes all connections, with a reason for the clients. */
  readonly closeConnections: (reason: string) => Effect.Effect<void, ServerError>
  /** Raises the memory alarm, which blocks publishers, until `calm` or the end of the server. */
  readonly alarm: Effect.Effect<void, ServerError>
  readonly calm: Effect.Effect<void, ServerError>
  /** Evaluates an Erlang expression in the server, and returns the text of its value. */
  readonly evaluate: (expression: string) => Effect.Effect<string, ServerError>
}

// #region Programs

const ROOT = "/usr/lib/rabbitmq/lib"

/** The directory of the newest installed version. */
const home = existsSync(ROOT)
  ? readdirSync(ROOT)
      .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
      .map((version) => join(ROOT, version))
      .find((directory) => existsSync(join(directory, "plugins")))
  : undefined

/**
 * The applications of the server, without those of plugins: searching them too adds more than a second to a start.
 */
const applications =
  home === undefined
    ? []
    : readdirSync(join(home, "plugins"))
        .filter((name) => !name.startsWith("rabbitmq_") || name.startsWith("rabbitmq_prelaunch-"))
        .map((name) => join(home, "plugins", name))
        .filter((directory) => existsSync(join(directory, "ebin")))

/** The user that runs the server; `undefined` if there is none. */
const owner = serverUser("rabbitmq")

// #endregion

// #region Expressions

/** The socket on which a server takes expressions. */
const socketIn = (directory: string): string => join(directory, "expressions")

/**
 * The program that a server runs for it: it reads an expression from each connection, and writes its value, or why there is
 * none. `rabbitmqctl eval` does the same, and takes a second of a processor for its start.
 */
const evaluator = (socket: string): string => `spawn(fun() ->
  file:delete("${socket}"),
  {ok, Listener} = gen_tcp:listen(0, [binary, {packet, 4}, {active, false}, {ifaddr, {local, "${socket}"}}]),
  (fun Accept() ->
    {ok, Connection} = gen_tcp:accept(Listener),
    Answerer = spawn(fun() ->
      receive accepted -> ok end,
      {ok, Text} = gen_tcp:recv(Connection, 0),
      Answer = try
        {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Text)),
        {ok, Expressions} = erl_parse:parse_exprs(Tokens),
        {value, Value, _} = erl_eval:exprs(Expressions, []),
        io_lib:format("value ~tp", [Value])
      catch Class:Reason:Stack ->
        io_lib:format("~tp", [{Class, Reason, Stack}])
      end,
      ok = gen_tcp:send(Connection, unicode:characters_to_binary(Answer)),
      gen_tcp:close(Connection)
    end),
    ok = gen_tcp:controlling_process(Connection, Answerer),
    Answerer ! accepted,
    Accept()
  end)()
end).`

const VALUE = "value "

/** Both sides begin what they write with its length, in four bytes. */
const evaluate = (socket: string, expression: string): Effect.Effect<string, ServerError> =>
  Effect.callback((resume) => {
    const text = Buffer.from(expression)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(text.length)
    const chunks: Array<Buffer> = []
    const connection = connect(socket)
    connection.on("data", (chunk) => chunks.push(chunk))
    connection.once("error", (cause) => resume(Effect.fail(toServerError(cause))))
    connection.once("close", () => {
      const answer = Buffer.concat(chunks).subarray(4).toString()
      resume(
        answer.startsWith(VALUE)
          ? Effect.succeed(answer.slice(VALUE.length))
          : Effect.fail(new ServerError({ message: answer === "" ? "RabbitMQ gave no answer" : answer }))
      )
    })
    connection.write(Buffer.concat([length, text]))
    return Effect.sync(() => connection.destroy())
  })

// #endregion

// #region Directories

const dataIn = (directory: string): string => join(directory, "mnesia")

/** Writes the files that a server reads from its directory. */
const fill = (directory: string, { config = [] }: OwnServerOptions): void => {
  // the schema of the configuration is in the server's own application; no other plugin is linked
  mkdirSync(join(directory, "plugins"))
  const own = applications.find((application) => application.includes("/rabbit-"))
  if (own !== undefined) symlinkSync(own, join(directory, "plugins", "rabbit"))
  if (config.length > 0) writeFileSync(join(directory, "rabbitmq.conf"), `${config.join("\n")}\n`)
}

// #endregion

// #region Servers

/**
 * Runs without `epmd`, as a node is known by its port: none is started, and a running one is not contacted, since nothing
 * listens on port 1.
 */
const NO_EPMD = { ERL_EPMD_PORT: "1", ERL_FLAGS: "-start_epmd false" }

/** The environment of the server. Nothing else is inherited from this process. */
const ENVIRONMENT = {
  PATH: process.env["PATH"],
  LANG: "C.UTF-8",
  RABBITMQ_CONF_ENV_FILE: "/dev/null",
  ...NO_EPMD
}

/** The directory, name and ports of a server. */
interface Node {
  readonly directory: string
  readonly name: string
  readonly port: number
  readonly distributionPort: number
}

/**
 * Starts the program that the script `rabbitmq-server` starts, without the script's own steps, which take longer than the
 * start itself.
 */
const launchServer = (
  { directory, distributionPort, name, port }: Node,
  { consumerTimeoutMillis }: OwnServerOptions
) => {
  const timeout =
    consumerTimeoutMillis === undefined
      ? []
      : // a channel checks the timeout only when it ticks, and no configuration file can set that interval
        ["-rabbit", "consumer_timeout", String(consumerTimeoutMillis), "channel_tick_interval", "1000"]
  const args = [
    ["-pa", ...applications.map((application) => join(application, "ebin"))],
    ["-boot", "start_sasl"],
    ["-sname", name],
    ["-erl_epmd_port", String(distributionPort)],
    ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "prevent_overlapping_partitions", "false"],
    ["-noshell"],
    ["-eval", evaluator(socketIn(directory))],
    ["-s", "rabbit", "boot"],
    // ignores an interrupt of the test run, and does not spin while it waits for work
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
    RABBITMQ_MNESIA_BASE: dataIn(directory),
    RABBITMQ_PID_FILE: join(directory, "pid"),
    RABBITMQ_LOG_BASE: join(directory, "log"),
    RABBITMQ_LOGS: "-",
    RABBITMQ_LOG: "error"
  }
  return launch("erl", args.flat(), { owner, env })
}

/** Starts a server in its own directory. Its processes are ended and the directory is removed with the scope. */
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
  const inServer = (expression: string) => evaluate(socketIn(directory), expression)

  /** Sets the memory limit, and waits in the server until the alarm is as expected. */
  const setMemory = (limit: string, alarmed: boolean) =>
    Effect.asVoid(
      inServer(
        `vm_memory_monitor:set_vm_memory_high_watermark(${limit}),
        (fun Wait() ->
          case lists:keymember({resource_limit, memory, node()}, 1, rabbit_alarm:get_alarms()) of
            ${alarmed} -> ok;
            _ -> timer:sleep(20), Wait()
          end
        end)().`
      )
    )
  return {
    ...server,
    url: urlAt(server.port),
    settle: Effect.asVoid(inServer("[ok = dets:sync(Table) || Table <- dets:all()].")),
    restart: Effect.andThen(server.stop, server.start),
    restartEmpty: server.stop.pipe(
      Effect.andThen(Effect.promise(() => rm(dataIn(directory), { recursive: true }))),
      Effect.andThen(server.start)
    ),
    closeConnections: (reason) =>
      Effect.asVoid(
        inServer(
          `[rabbit_networking:close_connection(Pid, ${JSON.stringify(reason)}) || Pid <- rabbit_networking:connections()].`
        )
      ),
    alarm: setMemory("{absolute, 1}", true),
    calm: setMemory("0.4", false),
    evaluate: inServer
  }
})

// #endregion

// #region Suites

/** Describes a suite whose tests start their own servers. */
export const describeWithOwnRabbit = (name: string, body: () => void): void => {
  const missing =
    home === undefined
      ? `No RabbitMQ is installed below ${ROOT}: run \`apt-get install rabbitmq-server\` to run servers of tests.`
      : owner === undefined
        ? "There is no user rabbitmq, and the server does not run as root."
        : undefined
  describeUnless(missing, name, body)
}

/** Adds a test in real time, on its own server. */
export const testWithServer = testOn(startServer, 60_000)

// #endregion
