/** The RabbitMQ server that is there for all tests, and connections to this and to other ones. */
import { Duplex } from "node:stream"
import { type ChannelModel, type ConfirmChannel, connect } from "amqplib"
import { Effect, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import { toServerError, type ServerError } from "../support/ownServers.ts"

// #region Connections

/** A server that is frozen accepts connections all the same, and then says nothing. */
const CONNECT_MILLIS = 5_000

const attempt = <A>(call: () => Promise<A>): Effect.Effect<A, ServerError> =>
  Effect.tryPromise({ try: call, catch: toServerError })

/** What `close`, and the call that is under way, tell as well. An error that nobody listens to ends the process. */
const unheard = <A extends ChannelModel | ConfirmChannel>(emitter: A): A => {
  emitter.on("error", () => {})
  return emitter
}

/** A server that is frozen does not answer that the connection is closed. */
const end = (model: ChannelModel): Effect.Effect<void> =>
  attempt(() => model.close()).pipe(
    Effect.timeout("1 second"),
    Effect.ignore,
    Effect.andThen(
      Effect.sync(() => {
        const { connection } = model
        if ("stream" in connection && connection.stream instanceof Duplex) connection.stream.destroy()
      })
    )
  )

/** Opens a connection. It is closed with the scope, however the server is by then. */
export const openConnection = (url: string): Effect.Effect<ChannelModel, ServerError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(
      attempt(() => connect(url, { noDelay: true, timeout: CONNECT_MILLIS })),
      unheard
    ),
    end
  )

/** Opens a channel of a connection, with confirms. It ends with its connection. */
export const channelOf = (connection: ChannelModel): Effect.Effect<ConfirmChannel, ServerError> =>
  Effect.map(
    attempt(() => connection.createConfirmChannel()),
    unheard
  )

/** Opens a channel with confirms, on a connection of its own, which is closed with the scope. */
export const openChannel = (url: string): Effect.Effect<ConfirmChannel, ServerError, Scope.Scope> =>
  Effect.flatMap(openConnection(url), channelOf)

/** Uses a channel with confirms, on a connection of its own. */
export const withChannel = <A>(
  url: string,
  use: (channel: ConfirmChannel) => Promise<A>
): Effect.Effect<A, ServerError> =>
  Effect.scoped(Effect.flatMap(openChannel(url), (channel) => attempt(() => use(channel))))

// #endregion

// #region Suites

/** The server that is there for all: `CHICORY_TEST_RABBITMQ_URL`, or the local one. */
export const sharedUrl: string =
  process.env["CHICORY_TEST_RABBITMQ_URL"] ?? "amqp://guest:guest@127.0.0.1:5672"

/** Whether the server that is there for all answers. */
export const isUp = Effect.isSuccess(Effect.scoped(openConnection(sharedUrl)))

/** A suite on the server that is there for all. To be awaited at the top of a module. */
export const describeWithRabbit = async (name: string, body: () => void): Promise<void> => {
  const up = await Effect.runPromise(isUp)
  const hint = "start one with `rabbitmq-server -detached`, or name one with CHICORY_TEST_RABBITMQ_URL"
  // not the whole URL, which holds a password
  const { host } = new URL(sharedUrl)
  describeUnless(up ? undefined : `No RabbitMQ server answers at ${host}: ${hint}.`, name, body)
}

// #endregion
