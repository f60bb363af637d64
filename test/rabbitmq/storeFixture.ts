/** Messages on a RabbitMQ server of one's own with results in SQLite, as a program has them: only RabbitMQ is ever away. */
import { DatabaseSync } from "node:sqlite"
import { assert, layer } from "@effect/vitest"
import { Backend, Broker } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { SqliteBackend } from "chicory/sqlite"
import { Context, Effect, Layer, Logger, Schedule, type Scope } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import { temporaryFile } from "../sqlite/temporary.ts"
import type { ServerError } from "../support/ownServers.ts"
import { eventually, type Store } from "../support/storeFixture.ts"
import { withServer } from "../support/testOn.ts"
import { type OwnServer, type OwnServerOptions, startServer } from "./ownServer.ts"
import { withChannel } from "./server.ts"
import { makePrefix } from "./temporary.ts"

/** Where the messages and results of one test are. */
export interface Place {
  readonly names: Names
  /** Of the messages. */
  readonly prefix: string
  /** Of the results. */
  readonly filename: string
  /** Opens both as a process of its own would: with connections of its own. */
  readonly open: (options?: RabbitBroker.Options) => Effect.Effect<Store, unknown, Scope.Scope>
  /** The same without results. */
  readonly openBroker: (options?: RabbitBroker.Options) => Effect.Effect<Store, unknown, Scope.Scope>
  /** How many runs vanished with their worker. */
  readonly crashes: Effect.Effect<number>
}

/** A place that nobody else has. */
export const makePlace = Effect.fnUntraced(function* ({
  url
}: Pick<OwnServer, "url">): Effect.fn.Return<Place, never, Scope.Scope> {
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

/** Messages of the queue of `Count`, as a process knows them. */
export const countsOf = (store: Store): Effect.Effect<Broker.QueueCounts, Broker.BrokerError> =>
  Effect.map(Effect.provideContext(Broker.counts(["default"]), store), ([counts]) => counts!)

/** Waits until no message is left, claimed by one of these or by nobody. */
export const drained = (...stores: ReadonlyArray<Store>): Effect.Effect<void, Broker.BrokerError> =>
  eventually(
    Effect.map(Effect.forEach(stores, countsOf), (counts) =>
      counts.every(({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
    )
  )

/** How many messages the server holds in the quorum queues of a place, those that are delivered included. */
export const messagesOn = (server: OwnServer, { names }: Place): Effect.Effect<number, ServerError> =>
  Effect.map(
    server.ctl(
      "eval",
      `lists:sum([begin
        {ok, {_, N}, _} = ra:leader_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1), N
      end || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue,
        string:prefix(element(4, amqqueue:get_name(Q)), <<"${names.prefix}">>) =/= nomatch]).`
    ),
    Number
  )

/** Lets the server forget all it has. Those who are connected are cut off. */
export const loseAll = (server: OwnServer): Effect.Effect<unknown, ServerError> =>
  server.ctl(
    "eval",
    `rabbit_vhost:delete(<<"/">>, <<"test">>), rabbit_vhost:add(<<"/">>, <<"test">>),
    rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`
  )

/** Removes a queue, whatever is in it, as somebody else would. */
export const removeQueue = (server: OwnServer, name: string): Effect.Effect<unknown, ServerError> =>
  withChannel(server.url, (channel) => channel.deleteQueue(name))

/** Again and again, until it is accepted. */
export const insisting = <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(call, { schedule: Schedule.spaced("50 millis"), times: 200 })

/** The error of a call that may be made again. */
export const retryableOf = <R>(
  call: Effect.Effect<unknown, { readonly _tag: string }, R>
): Effect.Effect<Broker.BrokerError, unknown, R> =>
  Effect.map(Effect.flip(call), (error) => {
    assert(error instanceof Broker.BrokerError)
    assert.isTrue(error.retryable, error.message)
    return error
  })

/** What is warned of while an effect runs. */
export const warnings = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<ReadonlyArray<string>, E, R> => {
  const said: Array<string> = []
  const capture = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (logLevel !== "Info" && logLevel !== "Debug") said.push(String(message))
  })
  return Effect.as(Effect.provide(effect, Logger.layer([capture])), said)
}

/** A server that all tests of a suite have. */
class SharedServer extends Context.Service<SharedServer, OwnServer>()("chicory/test/rabbitmq/SharedServer") {}

/** Adds a test in real time. */
export type Test = <E>(
  name: string,
  body: (server: OwnServer, place: Place) => Effect.Effect<void, E, Scope.Scope>
) => void

/**
 * Tests on one server, one after the other, each in a place of its own. However a test ends, the server is there when
 * its clients are closed, and for the next.
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
            withServer(shared, (server) => Effect.flatMap(makePlace(server), (place) => body(server, place)))
          ),
        60_000
      )
    )
  )
