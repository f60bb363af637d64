/** Redis servers for tests: the one that is there for all, and ones that a test starts, stops and freezes itself. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { connect as connectPlain, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect as connectTls } from "node:tls"
import { Effect, Schedule, Schema, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"

/** What went wrong with a server: an error it answered, or that it does not answer. */
export class ServerError extends Schema.TaggedError<ServerError>()("ServerError", {
  message: Schema.String
}) {}

/** What a server answers. */
export type Reply = string | number | null | ReadonlyArray<Reply>

const failed = (cause: unknown): ServerError =>
  new ServerError({ message: cause instanceof Error ? cause.message : String(cause) })

// #region Commands

type Parsed = readonly [reply: Reply | ServerError, next: number]

const parse = (data: Buffer, at: number): Parsed | undefined => {
  const end = data.indexOf("\r\n", at)
  if (end === -1) return undefined
  const line = data.toString("utf8", at + 1, end)
  const next = end + 2
  switch (data.toString("utf8", at, at + 1)) {
    case "-":
      return [failed(line), next]
    case ":":
      return [Number(line), next]
    case "$": {
      const length = Number(line)
      if (length === -1) return [null, next]
      if (data.length < next + length + 2) return undefined
      return [data.toString("utf8", next, next + length), next + length + 2]
    }
    case "*": {
      const replies: Array<Reply> = []
      let at = next
      for (let left = Number(line); left > 0; left--) {
        const parsed = parse(data, at)
        if (parsed === undefined) return undefined
        replies.push(parsed[0] instanceof ServerError ? parsed[0].message : parsed[0])
        at = parsed[1]
      }
      return [replies, at]
    }
    default:
      return [line, next]
  }
}

const encode = (words: ReadonlyArray<string>): string =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`

/** Runs commands, one after another, on a connection of their own, and gives what the last one answers. */
const run = (target: string, ...commands: ReadonlyArray<ReadonlyArray<string>>) => {
  const { hostname, password, port, protocol, username } = new URL(target)
  const words = [username === "" ? "default" : username, password].map(decodeURIComponent)
  const all = password === "" ? commands : [["AUTH", ...words], ...commands]
  const to = { host: hostname, port: port === "" ? 6379 : Number(port) }
  return Effect.acquireUseRelease(
    Effect.sync(() => (protocol === "rediss:" ? connectTls(to) : connectPlain(to))),
    (socket) =>
      Effect.callback<Reply, ServerError>((resume) => {
        let data = Buffer.alloc(0)
        socket.on("data", (chunk) => {
          data = Buffer.concat([data, chunk])
          let at = 0
          for (let count = 1; ; count++) {
            const parsed = parse(data, at)
            if (parsed === undefined) return
            const [reply, next] = parsed
            if (reply instanceof ServerError) return resume(Effect.fail(reply))
            if (count === all.length) return resume(Effect.succeed(reply))
            at = next
          }
        })
        socket.on("error", (cause) => resume(Effect.fail(failed(cause))))
        socket.on("close", () => resume(Effect.fail(failed(`${target} closed the connection`))))
        socket.write(all.map(encode).join(""))
      }),
    (socket) => Effect.sync(() => socket.destroy())
  )
}

// #endregion

// #region Processes

/** How a server is started. */
export interface ServerOptions {
  /** More arguments of `redis-server`, such as `["--maxmemory", "2mb"]`. */
  readonly args?: ReadonlyArray<string> | undefined
  /** Whether every write is on the disk before it is answered, and there after a restart. Default: nothing is. */
  readonly persistent?: boolean | undefined
  readonly password?: string | undefined
}

/** A server of one's own. */
export interface Server {
  readonly port: number
  /** With the password, if it has one. */
  readonly url: string
  /** Kills the process and waits until it has ended. */
  readonly stop: Effect.Effect<void>
  /** Lets the process end by itself and waits until it has ended. */
  readonly stopGracefully: Effect.Effect<void>
  /** Starts it again, with the port and the directory it had, and waits until it answers. */
  readonly start: Effect.Effect<void, ServerError>
  /** Freezes the process: its connections stay, and nothing is answered. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Runs a command on a connection of its own. */
  readonly command: (...command: ReadonlyArray<string>) => Effect.Effect<Reply, ServerError>
}

const BUS_OFFSET = 10_000
// Below the ports that connections are given: one that is made again and again to a port of those may in the end be
// connected to itself.
const PORTS = { first: 10_000, count: 10_000 }

const isFree = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen(port, "127.0.0.1", () => probe.close(() => resume(Effect.succeed(true))))
  })

const freePort = Effect.gen(function* () {
  while (true) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count)
    if ((yield* isFree(port)) && (yield* isFree(port + BUS_OFFSET))) return port
  }
})

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "chicory-redis-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const running = new Set<ChildProcess>()
// a test run that is cut short runs no finalizers
process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")))

const ended = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (!running.has(child)) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
  })

const signal = (child: ChildProcess, name: NodeJS.Signals) =>
  Effect.andThen(
    Effect.sync(() => child.kill(name)),
    ended(child)
  )

/** Waits until the server accepts connections, or has ended. */
const accepts = (child: ChildProcess) =>
  Effect.callback<void, ServerError>((resume) => {
    let output = ""
    const onOutput = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-4000)
      if (output.includes("Ready to accept connections")) resume(Effect.void)
    }
    child.stdout?.on("data", onOutput)
    child.stderr?.on("data", onOutput)
    child.once("error", (cause) => resume(Effect.fail(failed(cause))))
    child.once("exit", () => resume(Effect.fail(failed(`redis-server has ended: ${output}`))))
  })

/** Starts a server with a directory of its own. The process is killed and the directory removed with the scope. */
export const startServer = Effect.fnUntraced(function* (
  options: ServerOptions = {}
): Effect.fn.Return<Server, ServerError, Scope.Scope> {
  const directory = yield* temporaryDirectory
  const args = [
    "--bind",
    "127.0.0.1",
    "--dir",
    directory,
    "--save",
    "",
    ...(options.persistent === true ? ["--appendonly", "yes", "--appendfsync", "always"] : []),
    ...(options.password === undefined ? [] : ["--requirepass", options.password]),
    ...(options.args ?? [])
  ]
  let child: ChildProcess | undefined
  const withChild = <A>(use: (child: ChildProcess) => Effect.Effect<A>) =>
    Effect.suspend(() => (child === undefined ? Effect.void : Effect.asVoid(use(child))))
  const stop = withChild((child) => signal(child, "SIGKILL"))
  yield* Effect.addFinalizer(() => stop)

  const startAt = (port: number) =>
    Effect.suspend(() => {
      if (child !== undefined && running.has(child)) return Effect.void
      const started = spawn("redis-server", ["--port", String(port), ...args], {
        stdio: ["ignore", "pipe", "pipe"]
      })
      child = started
      if (started.pid !== undefined) running.add(started)
      started.once("exit", () => running.delete(started))
      return accepts(started)
    })
  const port = yield* Effect.flatMap(freePort, (port) => Effect.as(startAt(port), port)).pipe(
    // another one was faster
    Effect.retry({ times: 9, while: ({ message }) => message.includes("Failed listening") })
  )

  const { password } = options
  const url = `redis://${password === undefined ? "" : `:${encodeURIComponent(password)}@`}127.0.0.1:${port}`
  const answers = Effect.asVoid(run(url, ["PING"]))
  yield* answers
  return {
    port,
    url,
    stop,
    stopGracefully: withChild((child) => signal(child, "SIGTERM")),
    start: Effect.andThen(startAt(port), answers),
    pause: withChild((child) => Effect.sync(() => child.kill("SIGSTOP"))),
    resume: withChild((child) => Effect.sync(() => child.kill("SIGCONT"))),
    command: (...command) => run(url, command)
  }
})

// #endregion

// #region Clusters

/** A cluster of one's own. */
export interface Cluster {
  readonly nodes: ReadonlyArray<Server>
  readonly ports: ReadonlyArray<number>
  /** For the client's options. */
  readonly rootNodes: Array<{ url: string }>
  /** The node whose slots a key is of. */
  readonly nodeOf: (key: string) => Effect.Effect<Server, ServerError>
  /** Waits until all nodes see the whole cluster. */
  readonly ready: Effect.Effect<void, ServerError>
}

const SLOTS = 16_384

/** Starts a cluster of masters, which share the slots evenly. The processes are killed with the scope. */
export const startCluster = Effect.fnUntraced(function* (
  count = 3,
  options: ServerOptions = {}
): Effect.fn.Return<Cluster, ServerError, Scope.Scope> {
  const { password } = options
  const args = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "5000",
    "--cluster-announce-ip",
    "127.0.0.1",
    ...(password === undefined ? [] : ["--masterauth", password]),
    ...(options.args ?? [])
  ]
  const nodes = yield* Effect.all(
    Array.from({ length: count }, () => startServer({ ...options, args })),
    { concurrency: "unbounded" }
  )
  const ports = nodes.map(({ port }) => port)
  const firstSlot = (index: number): number => Math.floor((index * SLOTS) / count)
  for (const [index, node] of nodes.entries()) {
    const last = firstSlot(index + 1) - 1
    yield* node.command("CLUSTER", "ADDSLOTSRANGE", String(firstSlot(index)), String(last))
    yield* node.command("CLUSTER", "SET-CONFIG-EPOCH", String(index + 1))
  }
  // each meets each, as gossip takes its time
  for (const node of nodes)
    for (const port of ports)
      if (port !== node.port) yield* node.command("CLUSTER", "MEET", "127.0.0.1", String(port))

  const seesAll = (node: Server) =>
    Effect.map(node.command("CLUSTER", "INFO"), (info) =>
      ["cluster_state:ok", `cluster_known_nodes:${count}`, `cluster_size:${count}`].every((line) =>
        String(info).includes(`${line}\r\n`)
      )
    )
  const ready = Effect.all(nodes.map(seesAll), { concurrency: "unbounded" }).pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (seen) => seen.every(Boolean) }),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.fail(failed("The nodes do not become a cluster"))
    }),
    Effect.asVoid
  )
  yield* ready
  return {
    nodes,
    ports,
    rootNodes: nodes.map(({ url }) => ({ url })),
    nodeOf: (key) =>
      Effect.map(nodes[0]!.command("CLUSTER", "KEYSLOT", key), (slot) => {
        const index = nodes.findLastIndex((_, index) => firstSlot(index) <= Number(slot))
        return nodes[index]!
      }),
    ready
  }
})

// #endregion

// #region Suites

/** The server that is there for all: `CHICORY_TEST_REDIS_URL`, or the local one. */
export const sharedUrl: string = process.env["CHICORY_TEST_REDIS_URL"] ?? "redis://127.0.0.1:6379"

/** Whether the server that is there for all answers. */
export const isUp: Effect.Effect<boolean> = run(sharedUrl, ["PING"]).pipe(
  Effect.timeout("2 seconds"),
  Effect.isSuccess
)

/** A suite on the server that is there for all. To be awaited at the top of a module. */
export const describeWithRedis = async (name: string, body: () => void): Promise<void> => {
  const up = await Effect.runPromise(isUp)
  const hint = "start one with `redis-server`, or name one with CHICORY_TEST_REDIS_URL"
  describeUnless(
    up ? undefined : `No Redis server answers at ${new URL(sharedUrl).host}: ${hint}.`,
    name,
    body
  )
}

/** A suite that starts servers of its own. */
export const describeWithServers = (name: string, body: () => void): void => {
  const installed = spawnSync("redis-server", ["--version"]).status === 0
  const missing = "`redis-server` is not on the PATH: install Redis 7, which has it."
  describeUnless(installed ? undefined : missing, name, body)
}

// #endregion
