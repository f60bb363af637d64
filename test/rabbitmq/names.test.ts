import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, Stream } from "effect"
import type { Delivery, Envelope } from "../../src/BrokerDriver.ts"
import { Names } from "../../src/rabbitmq/Names.ts"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { eventually } from "../support/storeFixture.ts"
import { describeWithRabbit, sharedUrl, withChannel } from "./server.ts"
import { temporaryPrefix } from "./shared.ts"

const envelope = (id: string, queue: string, delayMillis = 0): Envelope => ({
  id,
  task: "mail",
  queue,
  priority: 0,
  delayMillis,
  body: id
})

/** Claims the messages of the queues as they are pushed, until the scope closes. */
const consume = Effect.fnUntraced(function* (prefix: string, queues: readonly [string, ...Array<string>]) {
  const driver = yield* RabbitBroker.makeDriver({ url: sharedUrl, prefix })
  const claimedMessages: Array<Delivery> = []
  yield* Stream.runForEach(driver.ready(queues, 10), () =>
    Effect.map(driver.claim({ queues, max: 10, leaseMillis: 30_000, worker: "w" }), (claimed) => {
      claimedMessages.push(...claimed)
    })
  ).pipe(Effect.forkScoped)
  const until = (...ids: ReadonlyArray<string>) =>
    eventually(Effect.sync(() => ids.every((id) => claimedMessages.some((one) => one.id === id))))
  return { driver, until }
})

await describeWithRabbit("names on RabbitMQ", () => {
  describe.concurrent("queues", () => {
    for (const queue of ["nowhere", "marks", "due", "delay", "delay.5", "a b/ü#*", "\ud800"]) {
      it.live(
        `the queue ${JSON.stringify(queue)} does not collide with other names, with delays and without`,
        () =>
          Effect.gen(function* () {
            const prefix = yield* temporaryPrefix([queue, "default"])
            const { driver, until } = yield* consume(prefix, [queue, "default"])
            yield* driver.publish([
              envelope("now", queue),
              envelope("later", queue, 50),
              envelope("other", "default", 50)
            ])
            yield* until("now", "later", "other")
            assert.deepStrictEqual(
              yield* driver.counts([queue, "default"]),
              [2, 1].map((claimed) => ({ ready: 0, delayed: 0, claimed }))
            )
          })
      )
    }

    it.live("a queue that cannot be consumed does not keep a worker from its other queues", () =>
      Effect.gen(function* () {
        const prefix = yield* temporaryPrefix(["bad", "good"])
        const name = new Names(prefix).queue("bad")
        yield* withChannel(sharedUrl, (channel) =>
          channel.assertQueue(name, { durable: true, arguments: { "x-queue-type": "classic" } })
        )
        const { driver, until } = yield* consume(prefix, ["bad", "good"])
        yield* driver.publish([envelope("a", "good")])
        yield* until("a")
      }).pipe(Effect.provide(Logger.layer([])))
    )
  })
})
