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
import { fromUnknown, type RabbitError } from "./RabbitError.ts"

/** How a server is reached. */
export interface Address {
  readonly url: string
  readonly socket: SocketOptions
}

/** The client library keeps it to itself. */
const socketOf = (model: ChannelModel): Socket =>
  (model.connection as unknown as { readonly stream: Socket }).stream

/** A connection with its channel, for as long as it lives. */
export class Line {
  readonly model: ChannelModel
  readonly channel: ConfirmChannel
  /** Completed with the reason when the line has ended. */
  readonly ended: Deferred.Deferred<RabbitError>
  /** Closed while the server reads nothing that is published. */
  readonly unblocked = Latch.makeUnsafe(true)

  constructor(model: ChannelModel, channel: ConfirmChannel, onEnd: () => void) {
    this.model = model
    this.channel = channel
    this.ended = Deferred.makeUnsafe()
    const end = (cause: unknown) => {
      const why = fromUnknown(cause ?? "the connection was closed")
      if (!Deferred.doneUnsafe(this.ended, Exit.succeed(why))) return
      this.unblocked.openUnsafe()
      onEnd()
    }
    for (const emitter of [channel, model]) {
      emitter.on("error", end)
      emitter.on("close", end)
    }
    model.on("blocked", () => this.unblocked.closeUnsafe())
    model.on("unblocked", () => this.unblocked.openUnsafe())
  }

  get hasEnded(): boolean {
    return Deferred.isDoneUnsafe(this.ended)
  }

  /** What is sent meanwhile goes out in one write: the client library makes one for each frame. */
  together(send: () => void): void {
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
export const attempt = <A>(ask: () => Promise<A>): Effect.Effect<A, RabbitError> =>
  Effect.tryPromise({ try: ask, catch: fromUnknown })

/** Uses a channel of its own, for what may fail: an error closes the channel on which it happened. */
export const onChannel = <A>(
  { model }: Line,
  use: (channel: ConfirmChannel) => Promise<A>
): Effect.Effect<A, RabbitError> =>
  attempt(async () => {
    const channel = await model.createConfirmChannel()
    channel.on("error", () => {}) // what was asked for fails with it
    try {
      return await use(channel)
    } finally {
      // nobody waits for that: a server that is silent would not answer
      void channel.close().catch(() => {})
    }
  })

/** Waits until the server has seen what was sent on a line's channel, and until what it sent before is here. */
export const seen = ({ channel }: Line): Effect.Effect<void, RabbitError> =>
  Effect.asVoid(attempt(() => channel.prefetch(0)))

/** Opening a connection may take so long. */
const CONNECT_MILLIS = 10_000
/** The server is told that a connection ends, and has so long to answer. */
const CLOSE = "1 second"

const openLine = async ({ socket, url }: Address, purpose: string, onEnd: () => void): Promise<Line> => {
  const model = await connect(url, {
    noDelay: true,
    timeout: CONNECT_MILLIS,
    clientProperties: { connection_name: `chicory ${process.pid}: ${purpose}` },
    ...socket
  })
  model.on("error", () => {}) // it closes then, and that is heard
  try {
    return new Line(model, await model.createConfirmChannel(), onEnd)
  } catch (cause) {
    void model.close().catch(() => {})
    throw cause
  }
}

/** A server that does not answer must not keep the process alive. */
const closeLine = (line: Line): Effect.Effect<void> =>
  attempt(() => line.model.close()).pipe(
    Effect.timeoutOrElse({
      duration: CLOSE,
      orElse: () => Effect.sync(() => socketOf(line.model).destroy())
    }),
    Effect.ignore
  )

/** Gives the line that is open. */
export interface Lines {
  /** Waits while there is none. */
  readonly open: Effect.Effect<Line>
}

/** Keeps a line open until the scope closes. Fails where the first cannot be opened. */
export const keep = Effect.fnUntraced(function* (
  address: Address,
  purpose: string
): Effect.fn.Return<Lines, RabbitError, Scope.Scope> {
  let current: Line | undefined
  const isUp = Latch.makeUnsafe(false)
  const onEnd = () => {
    current = undefined
    isUp.closeUnsafe()
  }
  const open = Effect.acquireRelease(
    attempt(() => openLine(address, purpose, onEnd)),
    closeLine
  )
  const serve = (open: Effect.Effect<Line, RabbitError, Scope.Scope>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const line = yield* open
        current = line
        isUp.openUnsafe()
        const why = yield* Deferred.await(line.ended)
        yield* Effect.logWarning(`The connection to RabbitMQ for ${purpose} ended; connecting again`, why)
      })
    )
  const first = yield* Deferred.make<void, RabbitError>()
  yield* serve(Effect.onExit(open, (exit) => Deferred.done(first, Exit.asVoid(exit)))).pipe(
    Effect.andThen(Effect.forever(serve(Effect.retry(open, backoff)))),
    Effect.ignore,
    Effect.forkScoped
  )
  yield* Deferred.await(first)
  const whenUp: Effect.Effect<Line> = Effect.suspend(() =>
    current === undefined ? Effect.andThen(isUp.await, whenUp) : Effect.succeed(current)
  )
  return { open: whenUp }
})
