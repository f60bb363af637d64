/** What the broker says of a server that it cannot use, and of what it must not be told to do. */
import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { Backend, Broker, Task } from "chicory"
import { RabbitBroker } from "chicory/rabbitmq"
import { Cause, Context, Effect, Exit, Layer, Redacted, Schema } from "effect"
import { Names } from "../../src/rabbitmq/Names.ts"
import { timed } from "../support/storeFixture.ts"
import { describeWithOwnRabbit, testWithServer } from "./ownServer.ts"
import { describeWithRabbit, sharedUrl, withChannel } from "./server.ts"
import { temporaryPrefix } from "./shared.ts"

const SECRET = "wrong-and-secret"

/** The shared server's URL with some parts replaced. */
const urlOf = (parts: { readonly password?: string; readonly vhost?: string; readonly port?: number }) => {
  const url = new URL(sharedUrl)
  if (parts.password !== undefined) url.password = parts.password
  if (parts.vhost !== undefined) url.pathname = `/${encodeURIComponent(parts.vhost)}`
  if (parts.port !== undefined) url.port = String(parts.port)
  return url.href
}

/** What building the layer comes to: an error that keeps the password secret. */
const failureOf = (options: RabbitBroker.Options) =>
  Effect.map(Effect.flip(Effect.scoped(Layer.build(RabbitBroker.layer(options)))), (error) => {
    assert.strictEqual(error._tag, "BrokerError")
    assert.include(error.message, "connecting to RabbitMQ")
    for (const said of [
      error.message,
      JSON.stringify(error),
      inspect(error, { depth: 20, showHidden: true })
    ]) {
      assert.notInclude(said, SECRET)
    }
    return error
  })

/** What building the layer dies of. */
const defectOf = (options: RabbitBroker.Options) =>
  Effect.map(Effect.exit(Effect.scoped(Layer.build(RabbitBroker.layer(options)))), (exit) => {
    assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause), "a defect")
    return String(Cause.squash(exit.cause))
  })

const Ping = Task.make("ping", { payload: Schema.Number, success: Schema.Number })

/** The error of an enqueue, over a broker of its own. */
const enqueueError = Effect.fnUntraced(function* (prefix: string, queue: string) {
  const store = yield* Layer.build(
    Layer.merge(RabbitBroker.layer({ url: sharedUrl, prefix }), Backend.layerNotConfigured)
  )
  const error = yield* Effect.flip(Effect.provideContext(Ping.send(1, { queue }), store))
  assert(error instanceof Broker.BrokerError)
  return error
})

await describeWithRabbit("opening a broker", () => {
  describe("on a server that", () => {
    it.live("does not know the password tells so, keeps it secret, and is not asked again", () =>
      Effect.gen(function* () {
        for (const url of [urlOf({ password: SECRET }), Redacted.make(urlOf({ password: SECRET }))]) {
          const error = yield* failureOf({ url })
          assert.isFalse(error.retryable)
          assert.include(error.message, "ACCESS")
        }
      })
    )

    it.live("has no such virtual host tells which", () =>
      Effect.gen(function* () {
        const error = yield* failureOf({ url: urlOf({ vhost: "nowhere" }) })
        assert.isFalse(error.retryable)
        assert.include(error.message, "nowhere")
      })
    )

    it.live("is not there tells that it was refused, and may be asked again", () =>
      Effect.gen(function* () {
        const [millis, error] = yield* timed(failureOf({ url: urlOf({ port: 1, password: SECRET }) }))
        assert.isTrue(error.retryable)
        assert.include(error.message, "ECONNREFUSED")
        assert.isBelow(millis, 2_000)
      })
    )

    it.live("cannot be found tells so, and may be asked again", () =>
      Effect.gen(function* () {
        const error = yield* failureOf({ url: `amqp://user:${SECRET}@nowhere.invalid` })
        assert.isTrue(error.retryable)
        assert.include(error.message, "nowhere.invalid")
      })
    )
  })

  describe("for a queue", () => {
    it.live("that is there with other properties fails, names it, and is not tried again", () =>
      Effect.gen(function* () {
        const prefix = yield* temporaryPrefix()
        const name = new Names(prefix).queue("default")
        yield* withChannel(sharedUrl, (channel) => channel.assertQueue(name, { durable: true }))
        const [millis, error] = yield* timed(enqueueError(prefix, "default"))
        assert.isFalse(error.retryable)
        assert.include(error.message, name)
        assert.isBelow(millis, 2_000)
      })
    )

    it.live("whose name is too long for the server fails, names it, and is not tried again", () =>
      Effect.gen(function* () {
        const prefix = yield* temporaryPrefix()
        // each of these letters takes six bytes
        const queue = "ü".repeat(60)
        const error = yield* enqueueError(prefix, queue)
        assert.isFalse(error.retryable)
        assert.include(error.message, new Names(prefix).queue(queue))
        assert.include(error.message, "too long")
      })
    )

    it.live("that fails so does not fail what is sent elsewhere meanwhile", () =>
      Effect.gen(function* () {
        const prefix = yield* temporaryPrefix()
        const store = yield* Layer.build(
          Layer.merge(RabbitBroker.layer({ url: sharedUrl, prefix }), Backend.layerNotConfigured)
        )
        const [bad, good] = yield* Effect.all(
          [Effect.exit(Ping.send(1, { queue: "ü".repeat(60) })), Effect.exit(Ping.send(2))],
          { concurrency: "unbounded" }
        ).pipe(Effect.provideContext(store))
        assert.isTrue(Exit.isFailure(bad))
        assert.isTrue(Exit.isSuccess(good))
        const [counts] = yield* Context.get(store, Broker.Broker).counts(["default"])
        assert.strictEqual(counts?.ready, 1)
      })
    )
  })

  describe("options that are out of range are a defect:", () => {
    it.live("a url that is none, which is not repeated", () =>
      Effect.gen(function* () {
        const none = [`user:${SECRET}@host`, `http://user:${SECRET}@host`, "", `amqp//user:${SECRET}@host`]
        for (const text of none) {
          for (const url of [text, Redacted.make(text)]) {
            const defect = yield* defectOf({ url })
            assert.include(defect, "amqp://")
            assert.notInclude(defect, SECRET)
          }
        }
      })
    )

    it.live("durations and a prefix", () =>
      Effect.gen(function* () {
        const wrong: ReadonlyArray<readonly [RabbitBroker.Options, string]> = [
          [{ callTimeout: 0 }, "callTimeout must be"],
          [{ consumerTimeout: "-1 seconds" }, "consumerTimeout must be"],
          [{ prefix: "" }, "prefix must be"],
          [{ prefix: "x".repeat(61) }, "prefix must be"]
        ]
        for (const [options, allowed] of wrong) {
          assert.include(yield* defectOf({ url: sharedUrl, ...options }), allowed)
        }
      })
    )
  })
})

describeWithOwnRabbit("opening a broker on a server of one's own", () => {
  testWithServer("that has stopped fails, and succeeds when it is back", {}, (server) =>
    Effect.gen(function* () {
      yield* server.stop
      const error = yield* failureOf({ url: server.url })
      assert.isTrue(error.retryable)
      yield* server.start
      yield* Effect.scoped(Layer.build(RabbitBroker.layer({ url: server.url })))
    })
  )

  testWithServer("that is frozen can be given up", {}, (server) =>
    Effect.gen(function* () {
      yield* server.freeze
      const opening = Effect.scoped(Layer.build(RabbitBroker.layer({ url: server.url })))
      const [millis, opened] = yield* timed(Effect.timeoutOption(opening, "500 millis"))
      assert.strictEqual(opened._tag, "None")
      assert.isBelow(millis, 3_000)
    })
  )
})
