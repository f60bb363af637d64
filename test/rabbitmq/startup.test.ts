/** The errors of a broker whose server cannot be used, and the defects of options out of range. */
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

/** Returns the error of building the layer, and checks that it does not contain the password. */
const failureOf = (options: RabbitBroker.Options) =>
  Effect.map(Effect.flip(Effect.scoped(Layer.build(RabbitBroker.layer(options)))), (error) => {
    assert.strictEqual(error._tag, "BrokerError")
    assert.include(error.message, "connecting to RabbitMQ")
    for (const text of [
      error.message,
      JSON.stringify(error),
      inspect(error, { depth: 20, showHidden: true })
    ]) {
      assert.notInclude(text, SECRET)
    }
    return error
  })

/** Returns the message of the defect of building the layer. */
const defectOf = (options: RabbitBroker.Options) =>
  Effect.map(Effect.exit(Effect.scoped(Layer.build(RabbitBroker.layer(options)))), (exit) => {
    assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause), "a defect")
    return String(Cause.squash(exit.cause))
  })

const Ping = Task.make("ping", { payload: Schema.Number, success: Schema.Number })

/** Returns the error of an enqueue over a new broker. */
const enqueueError = Effect.fnUntraced(function* (prefix: string, queue: string) {
  const store = yield* Layer.build(
    Layer.merge(RabbitBroker.layer({ url: sharedUrl, prefix }), Backend.layerNotConfigured)
  )
  const error = yield* Effect.flip(Effect.provideContext(Ping.send(1, { queue }), store))
  assert(error instanceof Broker.BrokerError)
  return error
})

await describeWithRabbit("RabbitBroker.layer", () => {
  describe("fails on a server that", () => {
    it.live("refuses the password: not retryable, and without the password in the error", () =>
      Effect.gen(function* () {
        for (const url of [urlOf({ password: SECRET }), Redacted.make(urlOf({ password: SECRET }))]) {
          const error = yield* failureOf({ url })
          assert.isFalse(error.retryable)
          assert.include(error.message, "ACCESS")
        }
      })
    )

    it.live("has no such virtual host: not retryable, and names it", () =>
      Effect.gen(function* () {
        const error = yield* failureOf({ url: urlOf({ vhost: "nowhere" }) })
        assert.isFalse(error.retryable)
        assert.include(error.message, "nowhere")
      })
    )

    it.live("does not listen: retryable, and says that the connection was refused", () =>
      Effect.gen(function* () {
        const [millis, error] = yield* timed(failureOf({ url: urlOf({ port: 1, password: SECRET }) }))
        assert.isTrue(error.retryable)
        assert.include(error.message, "ECONNREFUSED")
        assert.isBelow(millis, 2_000)
      })
    )

    it.live("has no address: retryable, and names the host", () =>
      Effect.gen(function* () {
        const error = yield* failureOf({ url: `amqp://user:${SECRET}@nowhere.invalid` })
        assert.isTrue(error.retryable)
        assert.include(error.message, "nowhere.invalid")
      })
    )
  })

  describe("an enqueue to a queue", () => {
    it.live("that exists with other arguments fails, names the queue, and is not retryable", () =>
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

    it.live("whose name is too long for the server fails, names the queue, and is not retryable", () =>
      Effect.gen(function* () {
        const prefix = yield* temporaryPrefix()
        // each letter is percent-encoded to six bytes
        const queue = "ü".repeat(60)
        const error = yield* enqueueError(prefix, queue)
        assert.isFalse(error.retryable)
        assert.include(error.message, new Names(prefix).queue(queue))
        assert.include(error.message, "too long")
      })
    )

    it.live("that fails does not fail a concurrent enqueue to another queue", () =>
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

  describe("an option out of range is a defect", () => {
    it.live("that does not repeat an invalid url", () =>
      Effect.gen(function* () {
        const invalid = [`user:${SECRET}@host`, `http://user:${SECRET}@host`, "", `amqp//user:${SECRET}@host`]
        for (const text of invalid) {
          for (const url of [text, Redacted.make(text)]) {
            const defect = yield* defectOf({ url })
            assert.include(defect, "amqp://")
            assert.notInclude(defect, SECRET)
          }
        }
      })
    )

    it.live("for durations and the prefix", () =>
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

describeWithOwnRabbit("RabbitBroker.layer on a server of the test", () => {
  testWithServer("fails while the server is stopped, and succeeds once it is started", {}, (server) =>
    Effect.gen(function* () {
      yield* server.stop
      const error = yield* failureOf({ url: server.url })
      assert.isTrue(error.retryable)
      yield* server.start
      yield* Effect.scoped(Layer.build(RabbitBroker.layer({ url: server.url })))
    })
  )

  testWithServer("can be interrupted while the server is frozen", {}, (server) =>
    Effect.gen(function* () {
      yield* server.freeze
      const opening = Effect.scoped(Layer.build(RabbitBroker.layer({ url: server.url })))
      const [millis, opened] = yield* timed(Effect.timeoutOption(opening, "500 millis"))
      assert.strictEqual(opened._tag, "None")
      assert.isBelow(millis, 3_000)
    })
  )
})
