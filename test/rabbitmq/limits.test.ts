/** RabbitMQ with a `max_message_size` that is smaller than what the library takes by itself. */
import { assert } from "@effect/vitest"
import { AsyncResult, Task } from "chicory"
import { Effect, Exit, Schema } from "effect"
import { makeDriver } from "../../src/rabbitmq/RabbitBroker.ts"
import { type Store, startWorker } from "../support/storeFixture.ts"
import { describeWithOwnRabbit } from "./ownServer.ts"
import { onOneServer } from "./storeFixture.ts"

const LIMIT = 100_000

const Length = Task.make("length", { payload: Schema.String, success: Schema.Int })

const config = [`max_message_size = ${LIMIT}`]

describeWithOwnRabbit("messages that are larger than max_message_size", () => {
  onOneServer("a server with max_message_size", { config }, (test) => {
    test("fail their own batch for good, and no other batch in flight", ({ url }, { prefix }) =>
      Effect.gen(function* () {
        const { isPermanent, publish } = yield* makeDriver({ url, prefix })
        const publishOne = (n: number, size: number) =>
          publish([
            { id: `${n}`, task: "t", queue: "q", priority: 0, delayMillis: 0, body: "x".repeat(size) }
          ])
        // declares the queue
        yield* publishOne(0, 1)
        const isLarge = (n: number) => n % 10 === 3
        const exits = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, n) => n),
          (n) => Effect.exit(publishOne(n, isLarge(n) ? LIMIT + 1 : 1000)),
          { concurrency: "unbounded" }
        )
        for (const [n, exit] of exits.entries()) {
          if (!isLarge(n)) assert.isTrue(Exit.isSuccess(exit), `${n}`)
          else assert.isTrue(isPermanent?.(yield* Effect.flip(exit)), `${n}`)
        }
      }))

    test("fail with a permanent error that says the size and the limit, alone or beside others", (_, location) =>
      Effect.gen(function* () {
        const store = yield* location.open()
        yield* startWorker(
          store,
          Length,
          Length.toLayer((text) => Effect.succeed(text.length)),
          { concurrency: 8 }
        )
        const sendTo = (store: Store, sizes: ReadonlyArray<number>) =>
          Effect.gen(function* () {
            const exits = yield* Effect.forEach(
              sizes,
              (size) =>
                // in turns of their own, so that more than one batch is in flight
                Effect.exit(Effect.andThen(Effect.sleep(size % 5), Length.delay("x".repeat(size)))),
              { concurrency: "unbounded" }
            )
            for (const [index, size] of sizes.entries()) {
              if (size < LIMIT) {
                const handle = yield* exits[index]!
                assert.strictEqual(yield* AsyncResult.get(handle, { timeout: "20 seconds" }), size)
                continue
              }
              const exit = exits[index]!
              assert(Exit.isFailure(exit))
              const error = yield* Effect.flip(exit)
              assert(error._tag === "BrokerError", error._tag)
              assert.isFalse(error.retryable, error.message)
              assert.match(
                error.message,
                new RegExp(`a message has \\d{6} bytes, .*max_message_size is ${LIMIT}`)
              )
            }
          }).pipe(Effect.provideContext(store))
        const many = Array.from({ length: 200 }, (_, n) => (n % 50 === 7 ? 1000 * n + LIMIT : n))
        yield* sendTo(store, [LIMIT])
        yield* sendTo(store, many)
        // one that has not learned the limit
        yield* sendTo(yield* location.open(), many)
      }))
  })
})
