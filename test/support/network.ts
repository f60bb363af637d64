/** A proxy to a server, which injects faults of networks. */
import { createConnection, createServer, type Server, type Socket } from "node:net"
import { Effect, type Scope } from "effect"
import { toServerError, freePort, PORTS, type ServerError } from "./ownServers.ts"

/** Forwards bytes between clients and a server. */
export interface Network {
  /** The proxy's URL, which never changes. */
  readonly url: string
  /** Returns the number of accepted connections. */
  readonly accepted: () => number
  /** Destroys the open connections, and the next `unready` ones as soon as they are ready. */
  readonly cut: (unready?: number) => Effect.Effect<void>
  /** Destroys the open connections and refuses new ones. */
  readonly refuse: Effect.Effect<void>
  /** Accepts connections again. */
  readonly accept: Effect.Effect<void, ServerError>
  /** Mutes the open connections without closing them, until they are cut. New connections work. */
  readonly silence: Effect.Effect<void>
  /**
   * Holds back all bytes and closes, of new connections too, which are still accepted. `heal` delivers them.
   */
  readonly halfOpen: Effect.Effect<void>
  /** Connects new clients to the server at another URL. Open connections stay with theirs. */
  readonly redirect: (to: string) => Effect.Effect<void>
  /** Delays every byte by `millis`. */
  readonly latency: (millis: number) => Effect.Effect<void>
  /** Delivers `bytes` bytes every 10 milliseconds, on each connection and in either direction. */
  readonly drip: (bytes: number) => Effect.Effect<void>
  /** Cuts all connections every few hundred milliseconds, and some of the next ones as soon as they are ready. */
  readonly storm: Effect.Effect<void>
  /** Ends every fault except silence. Connections stay. */
  readonly heal: Effect.Effect<void, ServerError>
}

/** Options of a network. */
export interface Options {
  /**
   * Returns the last bytes for the client if the server's chunk makes the connection ready. Default: a connection is
   * ready after the server's first chunks, one to three of them.
   */
  readonly closingData?: ((chunk: Buffer) => Buffer | undefined) | undefined
}

interface Conditions {
  halfOpen: boolean
  latency: number
  drip: number
  /** The number of connections that are yet to be destroyed once they are ready. */
  unready: number
}

const TICK_MILLIS = 10

/** The number of undelivered bytes above which a sender is paused. */
const HIGH_WATER_MARK = 256 * 1024

/** One direction of a connection. */
class Direction {
  private readonly waiting: Array<{ chunk: Buffer; readonly due: number }> = []
  private size = 0
  private timer: NodeJS.Timeout | undefined
  private ended = false
  private closed = false
  private readonly from: Socket
  private readonly to: Socket
  private readonly conditions: Conditions
  silent = false

  constructor(from: Socket, to: Socket, conditions: Conditions) {
    this.from = from
    this.to = to
    this.conditions = conditions
    from.on("end", () => {
      this.ended = true
      this.deliver()
    })
    from.on("close", () => {
      this.closed = true
      this.deliver()
    })
    from.on("error", () => {})
  }

  /** Takes a chunk from the sender. */
  receive(chunk: Buffer): void {
    if (this.silent) return
    this.waiting.push({ chunk, due: performance.now() + this.conditions.latency })
    this.size += chunk.length
    if (this.size > HIGH_WATER_MARK) this.from.pause()
    this.deliver()
  }

  /** Delivers the chunks that are due. */
  deliver(): void {
    if (this.silent || this.conditions.halfOpen || this.timer !== undefined) return
    for (let first = this.waiting[0]; first !== undefined; first = this.waiting[0]) {
      const left = first.due - performance.now()
      if (left > 0) return this.deliverAfter(left)
      const part = first.chunk.subarray(0, this.conditions.drip)
      first.chunk = first.chunk.subarray(part.length)
      if (first.chunk.length === 0) this.waiting.shift()
      this.size -= part.length
      if (!this.to.destroyed) this.to.write(part)
      if (this.conditions.drip !== Infinity) return this.deliverAfter(TICK_MILLIS)
    }
    this.from.resume()
    if (this.closed) this.to.destroy()
    else if (this.ended) this.to.end()
  }

  /** Delivers under changed conditions. */
  reschedule(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.deliver()
  }

  private deliverAfter(millis: number): void {
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.deliver()
    }, millis)
  }

  stop(): void {
    this.silent = true
    clearTimeout(this.timer)
  }
}

/** A client's connection and its counterpart to the server. */
class ProxiedConnection {
  private readonly directions: ReadonlyArray<Direction>
  private readonly sockets: ReadonlyArray<Socket>
  private closed = 0

  constructor(
    client: Socket,
    server: Socket,
    conditions: Conditions,
    closingDataOf: ClosingData,
    onEnd: () => void
  ) {
    this.sockets = [client, server]
    const toServer = new Direction(client, server, conditions)
    const toClient = new Direction(server, client, conditions)
    this.directions = [toServer, toClient]
    client.on("data", (chunk: Buffer) => toServer.receive(chunk))
    server.on("data", (chunk: Buffer) => {
      const last = conditions.unready > 0 ? closingDataOf(this, chunk) : undefined
      if (last === undefined) return toClient.receive(chunk)
      conditions.unready--
      // one write, as from a server that stops at that moment
      client.end(last)
      server.destroy()
    })
    for (const socket of this.sockets) {
      socket.setNoDelay()
      socket.on("close", () => {
        if (++this.closed === this.sockets.length) onEnd()
      })
    }
  }

  reschedule(): void {
    for (const flow of this.directions) flow.reschedule()
  }

  silence(): void {
    for (const flow of this.directions) flow.stop()
  }

  destroy(): void {
    this.silence()
    for (const socket of this.sockets) socket.destroy()
  }
}

type ClosingData = (connection: ProxiedConnection, chunk: Buffer) => Buffer | undefined

/** Returns no closing data, once a connection has received one to three chunks. */
const afterSomeChunks = (): ClosingData => {
  const chunkCounts = new WeakMap<ProxiedConnection, number>()
  let next = 0
  return (connection) => {
    const times = (chunkCounts.get(connection) ?? 0) + 1
    chunkCounts.set(connection, times)
    if (times <= next) return undefined
    next = (next + 1) % 3
    return Buffer.alloc(0)
  }
}

const listen = (server: Server, port: number): Effect.Effect<void, ServerError> =>
  Effect.callback((resume) => {
    if (server.listening) return resume(Effect.void)
    server.once("error", (cause) => resume(Effect.fail(toServerError(cause))))
    server.listen(port, "127.0.0.1", () => resume(Effect.void))
  })

const HEALTHY = { halfOpen: false, latency: 0, drip: Infinity, unready: 0 }

/** Makes a proxy to the server at the URL, which closes with the scope. */
export const makeNetwork = Effect.fnUntraced(function* (
  to: string,
  { closingData }: Options = {}
): Effect.fn.Return<Network, ServerError, Scope.Scope> {
  let target = new URL(to)
  const conditions: Conditions = { ...HEALTHY }
  const connections = new Set<ProxiedConnection>()
  const closingDataOf: ClosingData =
    closingData === undefined ? afterSomeChunks() : (_, chunk) => closingData(chunk)
  let accepted = 0
  const server = createServer({ allowHalfOpen: true }, (client) => {
    accepted++
    const upstream = createConnection({
      host: target.hostname,
      port: Number(target.port),
      allowHalfOpen: true
    })
    const connection = new ProxiedConnection(client, upstream, conditions, closingDataOf, () =>
      connections.delete(connection)
    )
    connections.add(connection)
  })
  const destroyAll = (): void => {
    for (const connection of connections) connection.destroy()
  }
  let storm: NodeJS.Timeout | undefined
  const stormRound = (round: number): void => {
    conditions.unready = round % 3
    destroyAll()
    storm = setTimeout(() => stormRound(round + 1), 100 + ((round * 130) % 400))
  }
  const restore = (): void => {
    clearTimeout(storm)
    Object.assign(conditions, HEALTHY)
    for (const connection of connections) connection.reschedule()
  }
  const port = yield* Effect.acquireRelease(
    Effect.flatMap(freePort(PORTS.networks), (port) => Effect.as(listen(server, port), port)).pipe(
      // another process has taken the port
      Effect.retry({ times: 9 })
    ),
    () =>
      Effect.sync(() => {
        restore()
        server.close()
        destroyAll()
      })
  )
  const changeConditions = (changed: Partial<Conditions>) =>
    Effect.sync(() => {
      Object.assign(conditions, changed)
      for (const connection of connections) connection.reschedule()
    })
  const accept = Effect.suspend(() => listen(server, port))
  const url = new URL(to)
  url.port = String(port)
  return {
    url: url.href,
    accepted: () => accepted,
    cut: (unready = 0) =>
      Effect.sync(() => {
        conditions.unready = unready
        destroyAll()
      }),
    refuse: Effect.sync(() => {
      server.close()
      destroyAll()
    }),
    accept,
    silence: Effect.sync(() => {
      for (const connection of connections) connection.silence()
    }),
    redirect: (to) =>
      Effect.sync(() => {
        target = new URL(to)
      }),
    halfOpen: changeConditions({ halfOpen: true }),
    latency: (latency) => changeConditions({ latency }),
    drip: (drip) => changeConditions({ drip }),
    storm: Effect.sync(() => {
      clearTimeout(storm)
      stormRound(1)
    }),
    heal: Effect.andThen(Effect.sync(restore), accept)
  }
})
