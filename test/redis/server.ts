/** Redis servers for tests: the shared one, and servers that a test starts, stops and freezes. */
import { spawnSync } from "node:child_process"
import { connect as connectPlain } from "node:net"
import { connect as connectTls } from "node:tls"
import { Effect, Schedule, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import {
  toServerError,
  launch,
  type OwnServer,
  PORTS,
  ServerError,
  startProgram,
  temporaryDirectory
} from "../support/ownServers.ts"

/** The reply to a command. */
export type Reply = string | number | null | ReadonlyArray<Reply>

// #region Commands

type Parsed = readonly [reply: Reply | ServerError, next: number]

const parse = (data: Buffer, at: number): Parsed | undefined => {
  const end = data.indexOf("\r\n", at)
  if (end === -1) return undefined
  const line = data.toString("utf8", at + 1, end)
  const next = end + 2
  switch (data.toString("utf8", at, at + 1)) {
    case "-":
      return [toServerError(line), next]
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

/** Runs commands, one after another, on a new connection, and returns the reply to the last one. */
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
        socket.on("error", (cause) => resume(Effect.fail(toServerError(cause))))
        socket.on("close", () => resume(Effect.fail(toServerError(`${target} closed the connection`))))
        socket.write(all.map(encode).join(""))
      }),
    (socket) => Effect.sync(() => socket.destroy())
  )
}

// #endregion

// #region Servers

/** Options of a server. */
export interface ServerOptions {
  /** Further arguments of `redis-server`, such as `["--maxmemory", "2mb"]`. */
  readonly args?: ReadonlyArray<string> | undefined
  /** Whether every write is on disk before its reply, and survives a restart. Default `false`: nothing is written to disk. */
  readonly persistent?: boolean | undefined
  readonly password?: string | undefined
}

/** A server of one test. Its URL contains the password, if there is one. */
export interface Server extends OwnServer {
  /** Runs a command on a new connection. */
  readonly command: (...command: ReadonlyArray<string>) => Effect.Effect<Reply, ServerError>
}

/** Starts a server in a temporary directory. Both are removed when the scope closes. */
export const startServer = Effect.fnUntraced(function* (
  options: ServerOptions = {}
): Effect.fn.Return<Server, ServerError, Scope.Scope> {
  const directory = yield* temporaryDirectory("redis")
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
  const { password } = options
  const urlAt = (port: number) =>
    `redis://${password === undefined ? "" : `:${encodeURIComponent(password)}@`}127.0.0.1:${port}`
  const server = yield* startProgram({
    name: "redis-server",
    ports: PORTS.redis,
    launch: (port) => launch("redis-server", ["--port", String(port), ...args]),
    ready: /Ready to accept connections/,
    portTaken: "Failed listening",
    untilAnswers: (port) => Effect.asVoid(run(urlAt(port), ["PING"]))
  })
  const url = urlAt(server.port)
  return { ...server, url, command: (...command) => run(url, command) }
})

// #endregion

// #region Clusters

/** A cluster of one test. */
export interface Cluster {
  readonly nodes: ReadonlyArray<Server>
  readonly ports: ReadonlyArray<number>
  /** The root nodes, as an option of the client. */
  readonly rootNodes: Array<{ url: string }>
  /** Returns the node that has the slot of a key. */
  readonly nodeOf: (key: string) => Effect.Effect<Server, ServerError>
  /** Waits until all nodes see the whole cluster. */
  readonly ready: Effect.Effect<void, ServerError>
}

const SLOTS = 16_384

/** Starts a cluster of masters, which share the slots evenly. They are killed when the scope closes. */
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
  // every node meets every other, since gossip takes long
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
      orElse: () => Effect.fail(toServerError("The nodes do not become a cluster"))
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

/** The URL of the shared server: `CHICORY_TEST_REDIS_URL`, or the local server. */
export const sharedUrl: string = process.env["CHICORY_TEST_REDIS_URL"] ?? "redis://127.0.0.1:6379"

/** Whether the shared server answers. */
export const isUp: Effect.Effect<boolean> = run(sharedUrl, ["PING"]).pipe(
  Effect.timeout("2 seconds"),
  Effect.isSuccess
)

/** Describes a suite on the shared server. Has to be awaited at the top of a module. */
export const describeWithRedis = async (name: string, body: () => void): Promise<void> => {
  const up = await Effect.runPromise(isUp)
  const hint = "start one with `redis-server`, or name one with CHICORY_TEST_REDIS_URL"
  describeUnless(
    up ? undefined : `No Redis server answers at ${new URL(sharedUrl).host}: ${hint}.`,
    name,
    body
  )
}

/** Describes a suite whose tests start their own servers. */
export const describeWithServers = (name: string, body: () => void): void => {
  const installed = spawnSync("redis-server", ["--version"]).status === 0
  const missing = "`redis-server` is not on the PATH: install Redis 7."
  describeUnless(installed ? undefined : missing, name, body)
}

// #endregion
