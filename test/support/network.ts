/** A way to a server that fails as networks do. */
import { createConnection, createServer, type Server, type Socket } from "node:net"
import { Effect, type Scope } from "effect"
import { failed, freePort, PORTS, type ServerError } from "./ownServers.ts"

/** Carries what a client and a server say. */
export interface Network {
  /** Leads to the server. It stays the same. */
  readonly url: string
  /** How many connections it has accepted. */
  readonly accepted: () => number
  /** Destroys the connections that there are. So many of those that follow are destroyed the moment they are ready. */
  readonly cut: (unready?: number) => Effect.Effect<void>
  /** Destroys the connections that there are, and refuses all others. */
  readonly refuse: Effect.Effect<void>
  /** Refuses no more. */
  readonly accept: Effect.Effect<void, ServerError>
  /** The connections that there are carry nothing any more, and nobody is told, until they are cut. Those to come do. */
  readonly silence: Effect.Effect<void>
  /**
   * Nothing arrives, nothing closes, and connections are accepted that answer nothing. When it is healed, all that was
   * said arrives.
   */
  readonly halfOpen: Effect.Effect<void>
  /** All arrives so much later. */
  readonly latency: (millis: number) => Effect.Effect<void>
  /** So many bytes arrive at a time, each 10 milliseconds, on each connection and either way. */
  readonly drip: (bytes: number) => Effect.Effect<void>
  /** Cuts all connections every few hundred milliseconds, and some of those that follow the moment they are ready. */
  readonly storm: Effect.Effect<void>
  /** Ends all of that, but silence. Connections stay. */
  readonly heal: Effect.Effect<void, ServerError>
}

/** How a connection is destroyed the moment it is ready. */
export interface Options {
  /**
   * Of what the server says: what the client hears last, if it is ready by that. Default: one is ready when the server
   * has spoken once, or a few times.
   */
  readonly lastWords?: ((said: Buffer) => Buffer | undefined) | undefined
}

interface Conditions {
  halfOpen: boolean
  latency: number
  drip: number
  /** How many connections are still to be destroyed the moment they are ready. */
  unready: number
}

const TICK_MILLIS = 10

/** A sender is told to wait when so much has not arrived. */
const MUCH = 256 * 1024

/** One direction of a connection. */
class Flow {
  private readonly waiting: Array<{ said: Buffer; readonly due: number }> = []
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
      this.carry()
    })
    from.on("close", () => {
      this.closed = true
      this.carry()
    })
    from.on("error", () => {})
  }

  /** Takes what was said. */
  take(said: Buffer): void {
    if (this.silent) return
    this.waiting.push({ said, due: performance.now() + this.conditions.latency })
    this.size += said.length
    if (this.size > MUCH) this.from.pause()
    this.carry()
  }

  /** Lets arrive what is due. */
  carry(): void {
    if (this.silent || this.conditions.halfOpen || this.timer !== undefined) return
    for (let first = this.waiting[0]; first !== undefined; first = this.waiting[0]) {
      const left = first.due - performance.now()
      if (left > 0) return this.carryIn(left)
      const part = first.said.subarray(0, this.conditions.drip)
      first.said = first.said.subarray(part.length)
      if (first.said.length === 0) this.waiting.shift()
      this.size -= part.length
      if (!this.to.destroyed) this.to.write(part)
      if (this.conditions.drip !== Infinity) return this.carryIn(TICK_MILLIS)
    }
    this.from.resume()
    if (this.closed) this.to.destroy()
    else if (this.ended) this.to.end()
  }

  /** The conditions are other ones. */
  hurry(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.carry()
  }

  private carryIn(millis: number): void {
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.carry()
    }, millis)
  }

  stop(): void {
    this.silent = true
    clearTimeout(this.timer)
  }
}

/** A connection. */
class Link {
  private readonly flows: ReadonlyArray<Flow>
  private readonly sockets: ReadonlyArray<Socket>
  private closed = 0

  constructor(
    client: Socket,
    server: Socket,
    conditions: Conditions,
    lastWords: LastWords,
    onEnd: () => void
  ) {
    this.sockets = [client, server]
    const there = new Flow(client, server, conditions)
    const back = new Flow(server, client, conditions)
    this.flows = [there, back]
    client.on("data", (said: Buffer) => there.take(said))
    server.on("data", (said: Buffer) => {
      const last = conditions.unready > 0 ? lastWords(this, said) : undefined
      if (last === undefined) return back.take(said)
      conditions.unready--
      // in one piece, as from a server that is stopped just then
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

  hurry(): void {
    for (const flow of this.flows) flow.hurry()
  }

  silence(): void {
    for (const flow of this.flows) flow.stop()
  }

  destroy(): void {
    this.silence()
    for (const socket of this.sockets) socket.destroy()
  }
}

type LastWords = (link: Link, said: Buffer) => Buffer | undefined

/** One to three times. */
const someTimes = (): LastWords => {
  const spoken = new WeakMap<Link, number>()
  let next = 0
  return (link) => {
    const times = (spoken.get(link) ?? 0) + 1
    spoken.set(link, times)
    if (times <= next) return undefined
    next = (next + 1) % 3
    return Buffer.alloc(0)
  }
}

const listen = (server: Server, port: number): Effect.Effect<void, ServerError> =>
  Effect.callback((resume) => {
    if (server.listening) return resume(Effect.void)
    server.once("error", (cause) => resume(Effect.fail(failed(cause))))
    server.listen(port, "127.0.0.1", () => resume(Effect.void))
  })

const WELL = { halfOpen: false, latency: 0, drip: Infinity, unready: 0 }

/** A way to the server of that URL, until the scope closes. */
export const makeNetwork = Effect.fnUntraced(function* (
  to: string,
  { lastWords }: Options = {}
): Effect.fn.Return<Network, ServerError, Scope.Scope> {
  const target = new URL(to)
  const conditions: Conditions = { ...WELL }
  const links = new Set<Link>()
  const last: LastWords = lastWords === undefined ? someTimes() : (_, said) => lastWords(said)
  let accepted = 0
  const server = createServer({ allowHalfOpen: true }, (client) => {
    accepted++
    const far = createConnection({
      host: target.hostname,
      port: Number(target.port),
      allowHalfOpen: true
    })
    const link = new Link(client, far, conditions, last, () => links.delete(link))
    links.add(link)
  })
  const destroyAll = (): void => {
    for (const link of links) link.destroy()
  }
  let storm: NodeJS.Timeout | undefined
  const blow = (round: number): void => {
    conditions.unready = round % 3
    destroyAll()
    storm = setTimeout(() => blow(round + 1), 100 + ((round * 130) % 400))
  }
  const calm = (): void => {
    clearTimeout(storm)
    Object.assign(conditions, WELL)
    for (const link of links) link.hurry()
  }
  const port = yield* Effect.acquireRelease(
    Effect.flatMap(freePort(PORTS.networks), (port) => Effect.as(listen(server, port), port)).pipe(
      // another one was faster
      Effect.retry({ times: 9 })
    ),
    () =>
      Effect.sync(() => {
        calm()
        server.close()
        destroyAll()
      })
  )
  const under = (changed: Partial<Conditions>) =>
    Effect.sync(() => {
      Object.assign(conditions, changed)
      for (const link of links) link.hurry()
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
      for (const link of links) link.silence()
    }),
    halfOpen: under({ halfOpen: true }),
    latency: (latency) => under({ latency }),
    drip: (drip) => under({ drip }),
    storm: Effect.sync(() => {
      clearTimeout(storm)
      blow(1)
    }),
    heal: Effect.andThen(Effect.sync(calm), accept)
  }
})
