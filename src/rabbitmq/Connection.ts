/**
 * A line to the server: one connection with one channel, which end together.
 *
 * Lines are kept: one that ends is followed by another, with backoff, until the scope closes. Messages are published
 * on one line and consumed on another, since a server that runs out of memory or disk stops reading from connections
 * that publish, and acks have to get through all the same.
 */
import type { Socket } from "node:net"
import { type ChannelModel, type ConfirmChannel, connect, type SocketOptions } from "amqplib"
import { Deferred, Effect, Exit, Latch, type Scope } from "effect"
import { backoff } from "../internal/backoff.ts"
import { fromUnknown, RabbitError } from "./RabbitError.ts"

/** How a server is reached. */
export interface Address {
  readonly url: string
  readonly socket: SocketOptions
}

/** The client library keeps it to itself. */
const socketOf = (model: ChannelModel): Socket =>
  (model.connection as unknown as { readonly stream: Socket }).stream

/** A connection with its channel, for as long as it lives. */
export class Connection {
  readonly model: ChannelModel
  readonly channel: ConfirmChannel
  /** Nothing more can be sent or comes. */
  isClosed = false
  /** Completed with the reason when the line has ended. */
  readonly closed = Deferred.makeUnsafe<RabbitError>()
  /** Closed while the server reads nothing that is published. */
  readonly unblocked = Latch.makeUnsafe(true)

  constructor(model: ChannelModel, channel: ConfirmChannel, onEnd: () => void) {
    this.model = model
    this.channel = channel
    const tell = (cause: unknown) => Deferred.doneUnsafe(this.closed, Exit.succeed(fromUnknown(cause)))
    const end = (cause: unknown) => {
      if (!this.isClosed) {
        this.isClosed = true
        this.unblocked.openUnsafe()
        onEnd()
        // a channel is closed before its connection, which knows why
        setImmediate(() => tell("the connection was closed"))
      }
      if (cause !== undefined) tell(cause)
    }
    for (const emitter of [channel, model]) {
      emitter.on("error", end)
      emitter.on("close", end)
    }
    model.on("blocked", () => this.unblocked.closeUnsafe())
    model.on("unblocked", () => this.unblocked.openUnsafe())
  }

  /** What is sent meanwhile goes out in one write: the client library makes one for each frame. */
  writeTogether(send: () => void): void {
    const socket = socketOf(this.model)
    socket.cork()
    try {
      send()
    } finally {
      // it writes in an immediate that it asks for in the next tick
      process.nextTick(() => setImmediate(() => socket.uncork()))
    }
  }
}

/** What the client library answers. */
export const tryCall = <A>(ask: () => Promise<A>): Effect.Effect<A, RabbitError> =>
  Effect.tryPromise({ try: ask, catch: fromUnknown })

/** Uses a channel of its own, for what may fail: an error closes the channel on which it happened. */
export const withChannel = <A>(
  { model }: Connection,
  use: (channel: ConfirmChannel) => Promise<A>
): Effect.Effect<A, RabbitError> =>
  tryCall(async () => {
    const channel = await model.createConfirmChannel()
    channel.on("error", () => {}) // what was asked for fails with it
    try {
      return await use(channel)
    } finally {
      // nobody waits for that: a server that is silent would not answer
      void channel.close().catch(() => {})
    }
  })

/**
 * Waits until the server has seen what was sent on a line's channel, and until what it sent before is here. The prefetch
 * that is named is that of consumers to come, and each of them says its own.
 */
export const syncChannel = ({ channel }: Connection): Effect.Effect<void, RabbitError> =>
  Effect.asVoid(tryCall(() => channel.prefetch(0)))

/** Opening a connection may take so long. */
const CONNECT_MILLIS = 10_000
/** The server is told that a connection ends, and has so long to answer. */
const CLOSE = "1 second"

/** Opening a connection to a virtual host is refused without a word in the client library's error. */
const REFUSED = /^Expected ConnectionOpenOk/

const openModel = async (
  { socket, url }: Address,
  purpose: string,
  signal: AbortSignal
): Promise<ChannelModel> => {
  // destroys the socket of one that is given up; the types do not know it
  const giveUp = { signal }
  try {
    return await connect(url, {
      noDelay: true,
      timeout: CONNECT_MILLIS,
      clientProperties: { connection_name: `chicory ${process.pid}: ${purpose}` },
      ...giveUp,
      ...socket
    })
  } catch (cause) {
    if (!(cause instanceof Error && REFUSED.test(cause.message))) throw cause
    const name = decodeURIComponent(new URL(url).pathname.slice(1))
    throw new RabbitError({
      message: `the server does not let this user into the virtual host "${name === "" ? "/" : name}", or has none of that name`,
      code: 530,
      cause
    })
  }
}

/** Heard from the first moment on: it may be closed in the very moment it is ready. */
const openLine = async (
  address: Address,
  purpose: string,
  onEnd: () => void,
  signal: AbortSignal
): Promise<Connection> => {
  const model = await openModel(address, purpose, signal)
  let closed: { readonly cause: unknown } | undefined
  model.on("error", () => {}) // it closes then, and that is heard
  model.on("close", (cause: unknown) => {
    closed ??= { cause }
  })
  try {
    const channel = await model.createConfirmChannel()
    if (closed !== undefined)
      throw (closed.cause as Error | undefined) ?? new Error("the connection was closed")
    return new Connection(model, channel, onEnd)
  } catch (cause) {
    void model.close().catch(() => {})
    throw cause
  }
}

/** A server that does not answer must not keep the process alive. */
const closeLine = (line: Connection): Effect.Effect<void> =>
  tryCall(() => line.model.close()).pipe(
    Effect.timeoutOrElse({
      duration: CLOSE,
      // with an error, or the client library would go on sending heartbeats
      orElse: () => Effect.sync(() => socketOf(line.model).destroy(new Error("the server does not answer")))
    }),
    Effect.ignore
  )

/** Gives the line that is open. */
export interface ReconnectingConnection {
  /** Waits while there is none. */
  readonly current: Effect.Effect<Connection>
}

/** Keeps a line open until the scope closes. Fails where the first cannot be opened. */
export const keep = Effect.fnUntraced(function* (
  address: Address,
  purpose: string
): Effect.fn.Return<ReconnectingConnection, RabbitError, Scope.Scope> {
  let current: Connection | undefined
  const isUp = Latch.makeUnsafe(false)
  const onEnd = () => {
    current = undefined
    isUp.closeUnsafe()
  }
  const open = Effect.acquireRelease(
    Effect.tryPromise({ try: (signal) => openLine(address, purpose, onEnd, signal), catch: fromUnknown }),
    closeLine,
    { interruptible: true }
  )
  const serve = (open: Effect.Effect<Connection, RabbitError, Scope.Scope>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const line = yield* open
        if (!line.isClosed) {
          current = line
          said = ""
          isUp.openUnsafe()
        }
        const why = yield* Deferred.await(line.closed)
        yield* Effect.logWarning(`The connection to RabbitMQ for ${purpose} ended; connecting again`, why)
      })
    )
  let said = ""
  const sayAway = (error: RabbitError) =>
    Effect.suspend(() => {
      if (error.message === said) return Effect.void
      said = error.message
      return Effect.logWarning(`RabbitMQ cannot be reached for ${purpose}; trying again`, error)
    })
  const first = yield* Deferred.make<void, RabbitError>()
  yield* serve(Effect.onExit(open, (exit) => Deferred.done(first, Exit.asVoid(exit)))).pipe(
    Effect.andThen(Effect.forever(serve(Effect.retry(Effect.tapError(open, sayAway), backoff)))),
    Effect.ignore,
    Effect.forkScoped
  )
  yield* Deferred.await(first)
  const whenUp: Effect.Effect<Connection> = Effect.suspend(() =>
    current === undefined ? Effect.andThen(isUp.await, whenUp) : Effect.succeed(current)
  )
  return { current: whenUp }
})
