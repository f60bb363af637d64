/** Stores with messages on a RabbitMQ server of one test and results in SQLite, so that only RabbitMQ is ever down. */
import { DatabaseSync } from "node:sqlite"
import { assert, layer } from "@effect/vitest"
import { Backend, Broker } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { SqliteBackend } from "chicory/sqlite"
import { Cause, Context, Effect, Layer, Logger, Schedule, type Scope } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import type { ServerError } from "../support/ownServers.ts"
import { eventually, type Store } from "../support/storeFixture.ts"
import { withServer } from "../support/testOn.ts"
import { type OwnServer, type OwnServerOptions, startServer } from "./ownServer.ts"
import { withChannel } from "./server.ts"
import { makePrefix } from "./temporary.ts"

/** The location of the messages and results of one test. */
export interface StoreLocation {
  readonly names: Names
  /** The prefix of the messages. */
  readonly prefix: string
  /** The file of the results. */
  readonly filename: string
  /** Opens a store with its own connections, as another process would. */
  readonly open: (options?: RabbitBroker.Options) => Effect.Effect<Store, unknown, Scope.Scope>
  /** Opens a store without a backend. */
  readonly openBroker: (options?: RabbitBroker.Options) => Effect.Effect<Store, unknown, Scope.Scope>
  /** Counts the runs that ended by a crash of their worker. */
  readonly crashes: Effect.Effect<number>
}

/** Makes a unique location. */
export const makeStoreLocation = Effect.fnUntraced(function* ({
  url
}: Pick<OwnServer, "url">): Effect.fn.Return<StoreLocation, never, Scope.Scope> {
  const filename = yield* temporaryFile
  const prefix = makePrefix()
  const broker = (options: RabbitBroker.Options) => RabbitBroker.layer({ url, prefix, ...options })
  return {
    names: new Names(prefix),
    prefix,
    filename,
    open: (options = {}) => Layer.build(Layer.merge(broker(options), SqliteBackend.layer({ filename }))),
    openBroker: (options = {}) => Layer.build(Layer.merge(broker(options), Backend.layerNotConfigured)),
    crashes: Effect.sync(() => {
      const database = new DatabaseSync(filename, { readOnly: true })
      const row = database.prepare("SELECT COALESCE(sum(crashes), 0) AS crashes FROM chicory_tasks").get()
      database.close()
      return Number(row!["crashes"])
    })
  }
})

/** Returns a store's counts of the default queue. */
export const countsOf = (store: Store): Effect.Effect<Broker.QueueCounts, Broker.BrokerError> =>
  Effect.map(Effect.provideContext(Broker.counts(["default"]), store), ([counts]) => counts!)

/** Waits until none of the stores counts a message. */
export const untilDrained = (...stores: ReadonlyArray<Store>): Effect.Effect<void, Broker.BrokerError> =>
  eventually(
    Effect.map(Effect.forEach(stores, countsOf), (counts) =>
      counts.every(({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
    )
  )

/** Counts the messages of a location in the server's quorum queues, delivered ones included. */
export const countMessages = (
  server: OwnServer,
  { names }: StoreLocation
): Effect.Effect<number, ServerError> =>
  Effect.map(
    server.evaluate(
      `lists:sum([begin
        {ok, {_, N}, _} = ra:leader_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1), N
      end || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue,
        string:prefix(element(4, amqqueue:get_name(Q)), <<"${names.prefix}">>) =/= nomatch]).`
    ),
    Number
  )

/** Waits until the server has no message of a location: it answers no ack, and carries it out a moment later. */
export const untilEmpty = (server: OwnServer, location: StoreLocation): Effect.Effect<void, ServerError> =>
  eventually(Effect.map(countMessages(server, location), (messages) => messages === 0))

/** Deletes a queue with its messages, over another connection. */
export const removeQueue = (server: OwnServer, name: string): Effect.Effect<unknown, ServerError> =>
  withChannel(server.url, (channel) => channel.deleteQueue(name))

/** Retries a call every 50 milliseconds until it succeeds. */
export const retryUntilAccepted = <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(call, { schedule: Schedule.spaced("50 millis"), times: 200 })

/** Returns the error of a call, and checks that it is retryable. */
export const retryableErrorOf = <R>(
  call: Effect.Effect<unknown, { readonly _tag: string }, R>
): Effect.Effect<Broker.BrokerError, unknown, R> =>
  Effect.map(Effect.flip(call), (error) => {
    assert(error instanceof Broker.BrokerError)
    assert.isTrue(error.retryable, error.message)
    return error
  })

/** Returns the warnings and errors that are logged while an effect runs. */
export const warningsOf = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<ReadonlyArray<string>, E, R> => {
  const logged: Array<string> = []
  const capture = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
    if (logLevel !== "Info" && logLevel !== "Debug") logged.push(`${String(message)} ${Cause.pretty(cause)}`)
  })
  return Effect.as(Effect.provide(effect, Logger.layer([capture])), logged)
}

/** The server that all tests of a suite share. */
class SharedServer extends Context.Service<SharedServer, OwnServer>()("chicory/test/rabbitmq/SharedServer") {}

/** Adds a test in real time. */
export type Test = <E>(
  name: string,
  body: (server: OwnServer, location: StoreLocation) => Effect.Effect<void, E, Scope.Scope>
) => void

/**
 * Registers tests that share one server and run one after the other, each in its own location. However a test ends, the
 * server runs again before its clients are closed, and before the next test.
 */
export const onOneServer = (name: string, options: OwnServerOptions, tests: (test: Test) => void): void =>
  layer(Layer.effect(SharedServer, startServer(options)), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })(name, (it) =>
    tests((name, body) =>
      it.effect(
        name,
        () =>
          Effect.flatMap(SharedServer, (shared) =>
            withServer(shared, (server) =>
              Effect.flatMap(makeStoreLocation(server), (location) => body(server, location))
            )
          ),
        60_000
      )
    )
  )
