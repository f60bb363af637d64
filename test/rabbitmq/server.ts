/** The RabbitMQ server that all tests share, and connections to servers. */
import { Duplex } from "node:stream"
import { type ChannelModel, type ConfirmChannel, connect } from "amqplib"
import { Effect, type Scope } from "effect"
import { describeUnless } from "../support/describeUnless.ts"
import { toServerError, type ServerError } from "../support/ownServers.ts"

// #region Connections

/** The timeout of connecting: a frozen server accepts connections, and does not answer. */
const CONNECT_MILLIS = 5_000

const tryCall = <A>(call: () => Promise<A>): Effect.Effect<A, ServerError> =>
  Effect.tryPromise({ try: call, catch: toServerError })

/** Ignores errors, which pending calls and `close` report as well. Without a listener, an error ends the process. */
const ignoreErrors = <A extends ChannelModel | ConfirmChannel>(emitter: A): A => {
  emitter.on("error", () => {})
  return emitter
}

/** Closes a connection. A frozen server does not answer, so the socket is destroyed after a second. */
const close = (model: ChannelModel): Effect.Effect<void> =>
  tryCall(() => model.close()).pipe(
    Effect.timeout("1 second"),
    Effect.ignore,
    Effect.andThen(
      Effect.sync(() => {
        const { connection } = model
        if ("stream" in connection && connection.stream instanceof Duplex) connection.stream.destroy()
      })
    )
  )

/** Opens a connection, which is closed with the scope even if the server is frozen or stopped. */
export const openConnection = (url: string): Effect.Effect<ChannelModel, ServerError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(
      tryCall(() => connect(url, { noDelay: true, timeout: CONNECT_MILLIS })),
      ignoreErrors
    ),
    close
  )

/** Opens a confirm channel, which closes with its connection. */
export const channelOf = (connection: ChannelModel): Effect.Effect<ConfirmChannel, ServerError> =>
  Effect.map(
    tryCall(() => connection.createConfirmChannel()),
    ignoreErrors
  )

/** Opens a confirm channel on its own connection, which is closed with the scope. */
export const openChannel = (url: string): Effect.Effect<ConfirmChannel, ServerError, Scope.Scope> =>
  Effect.flatMap(openConnection(url), channelOf)

/** Uses a confirm channel on its own connection. */
export const withChannel = <A>(
  url: string,
  use: (channel: ConfirmChannel) => Promise<A>
): Effect.Effect<A, ServerError> =>
  Effect.scoped(Effect.flatMap(openChannel(url), (channel) => tryCall(() => use(channel))))

// #endregion

// #region Suites

/** The URL of the shared server: `CHICORY_TEST_RABBITMQ_URL`, or the local server. */
export const sharedUrl: string =
  process.env["CHICORY_TEST_RABBITMQ_URL"] ?? "amqp://guest:guest@127.0.0.1:5672"

/** Whether the shared server answers. */
export const isUp = Effect.isSuccess(Effect.scoped(openConnection(sharedUrl)))

/** Describes a suite on the shared server. Has to be awaited at the top of a module. */
export const describeWithRabbit = async (name: string, body: () => void): Promise<void> => {
  const up = await Effect.runPromise(isUp)
  const hint = "start one with `rabbitmq-server -detached`, or name one with CHICORY_TEST_RABBITMQ_URL"
  // without the rest of the URL, which may hold a password
  const { host } = new URL(sharedUrl)
  describeUnless(up ? undefined : `No RabbitMQ server answers at ${host}: ${hint}.`, name, body)
}

// #endregion
