/**
 * One AMQP connection with one confirm channel. Both close together: an error on either ends the pair.
 */
import type { Socket } from "node:net"
import { type ChannelModel, type ConfirmChannel, connect, type SocketOptions } from "amqplib"
import { Deferred, Effect, Exit, Latch } from "effect"
import { dropOversizedBodies } from "./oversizedMessages.ts"
import { fromUnknown, RabbitError } from "./RabbitError.ts"
import { dropUnreadableProperties } from "./unreadableProperties.ts"

/** Where the server is. */
export interface Address {
  readonly url: string
  readonly socket: SocketOptions
}

/** Returns the socket beneath a connection, which the types of amqplib do not expose. */
const socketOf = (model: ChannelModel): Socket =>
  (model.connection as unknown as { readonly stream: Socket }).stream

/** An open connection and its channel. */
export class Connection {
  readonly model: ChannelModel
  readonly channel: ConfirmChannel
  /** `true` once nothing more can be sent or received. */
  isClosed = false
  /** Completes with the reason once the connection is closed. */
  readonly closed = Deferred.makeUnsafe<RabbitError>()
  /** Closed between the server's `connection.blocked` and `connection.unblocked`, while it reads no publishes. */
  readonly unblocked = Latch.makeUnsafe(true)

  constructor(model: ChannelModel, channel: ConfirmChannel, onClose: () => void) {
    this.model = model
    this.channel = channel
    const complete = (cause: unknown) => Deferred.doneUnsafe(this.closed, Exit.succeed(fromUnknown(cause)))
    const close = (cause: unknown) => {
      if (!this.isClosed) {
        this.isClosed = true
        this.unblocked.openUnsafe()
        onClose()
        // the channel closes before its connection, and only the connection's event carries the reason
        setImmediate(() => complete("the connection was closed"))
      }
      if (cause !== undefined) complete(cause)
    }
    for (const emitter of [channel, model]) {
      emitter.on("error", close)
      emitter.on("close", close)
    }
    model.on("blocked", () => this.unblocked.closeUnsafe())
    model.on("unblocked", () => this.unblocked.openUnsafe())
  }

  /** Sends the frames of `send` in one write to the socket; amqplib alone makes one write per frame. */
  writeTogether(send: () => void): void {
    const socket = socketOf(this.model)
    socket.cork()
    try {
      send()
    } finally {
      // amqplib writes in an immediate that it schedules in the next tick
      process.nextTick(() => setImmediate(() => socket.uncork()))
    }
  }
}

/** Opens a channel, which drops the bodies of oversized messages. */
const openChannel = async (model: ChannelModel): Promise<ConfirmChannel> => {
  const channel = await model.createConfirmChannel()
  dropOversizedBodies(channel)
  return channel
}

/** Runs a call of amqplib, and fails with `RabbitError`. */
export const tryCall = <A>(call: () => Promise<A>): Effect.Effect<A, RabbitError> =>
  Effect.tryPromise({ try: call, catch: fromUnknown })

/**
 * Runs calls that may fail on a temporary channel of the connection, since a channel error closes the channel on which
 * it happens.
 */
export const withChannel = <A>(
  { model }: Connection,
  use: (channel: ConfirmChannel) => Promise<A>
): Effect.Effect<A, RabbitError> =>
  tryCall(async () => {
    const channel = await openChannel(model)
    channel.on("error", () => {}) // the pending call fails with it
    try {
      return await use(channel)
    } finally {
      // not awaited: a silent server would not answer
      void channel.close().catch(() => {})
    }
  })

/**
 * Waits for a round trip on the connection's channel: the server has then handled everything that was sent before, and
 * everything that it had sent has arrived. The call is `basic.qos`, whose prefetch applies to later consumers only, and
 * each consumer sets its own.
 */
export const syncChannel = ({ channel }: Connection): Effect.Effect<void, RabbitError> =>
  Effect.asVoid(tryCall(() => channel.prefetch(0)))

const CONNECT_TIMEOUT_MILLIS = 10_000
/** How long the server has to answer `connection.close` before the socket is destroyed. */
const CLOSE_TIMEOUT = "1 second"

/** What amqplib reports when the server refuses a virtual host: it drops the server's reason. */
const VHOST_REFUSED = /^Expected ConnectionOpenOk/

const connectModel = async (
  { socket, url }: Address,
  purpose: string,
  signal: AbortSignal
): Promise<ChannelModel> => {
  // destroys the socket if the attempt is interrupted; the types of amqplib lack this option
  const untypedOptions = { signal }
  try {
    return await connect(url, {
      noDelay: true,
      timeout: CONNECT_TIMEOUT_MILLIS,
      clientProperties: { connection_name: `chicory ${process.pid}: ${purpose}` },
      ...untypedOptions,
      ...socket
    })
  } catch (cause) {
    if (!(cause instanceof Error && VHOST_REFUSED.test(cause.message))) throw cause
    const vhost = decodeURIComponent(new URL(url).pathname.slice(1))
    throw new RabbitError({
      message: `the server refuses this user access to the virtual host "${vhost === "" ? "/" : vhost}", or has no such virtual host`,
      code: 530,
      cause
    })
  }
}

/** Opens a connection with its channel. `purpose` is part of the connection's name on the server. */
export const open = async (
  address: Address,
  purpose: string,
  onClose: () => void,
  signal: AbortSignal
): Promise<Connection> => {
  const model = await connectModel(address, purpose, signal)
  dropUnreadableProperties(model)
  // subscribed before the channel is opened: the server may close the connection as soon as it is ready
  let closed: { readonly cause: unknown } | undefined
  model.on("error", () => {}) // "close" follows, with the same cause
  model.on("close", (cause: unknown) => {
    closed ??= { cause }
  })
  try {
    const channel = await openChannel(model)
    if (closed !== undefined)
      throw (closed.cause as Error | undefined) ?? new Error("the connection was closed")
    return new Connection(model, channel, onClose)
  } catch (cause) {
    void model.close().catch(() => {})
    throw cause
  }
}

/** Closes a connection. Destroys its socket if the server does not answer, so that it does not keep the process alive. */
export const close = (connection: Connection): Effect.Effect<void> =>
  tryCall(() => connection.model.close()).pipe(
    Effect.timeoutOrElse({
      duration: CLOSE_TIMEOUT,
      // destroyed with an error: without one amqplib keeps sending heartbeats
      orElse: () =>
        Effect.sync(() => socketOf(connection.model).destroy(new Error("the server does not answer")))
    }),
    Effect.ignore
  )
