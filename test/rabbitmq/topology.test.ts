/** What a driver declares on the server, when it declares it again, and how it counts it. */
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Array as Arr, type Duration, Effect, Exit, Fiber, Logger, type Scope } from "effect"
import type { BrokerDriver, QueueCounts } from "../../src/BrokerDriver.ts"
import { Names } from "../../src/rabbitmq/Names.ts"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { makeNetwork, type Network } from "../support/network.ts"
import { describeWithRabbit, sharedUrl, withChannel } from "./server.ts"
import { temporaryPrefix } from "./shared.ts"
import { retryUntilAccepted } from "./storeFixture.ts"

/** Calls of a driver that need a queue to be declared. */
const calls: ReadonlyArray<readonly [string, (driver: BrokerDriver) => Effect.Effect<unknown, unknown>]> = [
  ["count", ({ counts }) => counts(["default"])],
  ["purge", ({ purge }) => purge("default", 10)],
  ["claim", ({ claim }) => claim({ queues: ["default"], max: 1, leaseMillis: 1000, worker: "worker" })]
]

/** Ways in which a call gets no answer. */
const faults: ReadonlyArray<
  readonly [
    string,
    (network: Network, call: Fiber.Fiber<unknown, unknown>) => Effect.Effect<unknown, unknown>
  ]
> = [
  ["is too slow", (network, call) => Effect.andThen(Fiber.await(call), network.heal)],
  ["loses its connection", (network) => Effect.andThen(network.cut(), network.heal)]
]

/** Whether the exchange of due messages exists, which is declared with each queue. */
const isDeclared = (names: Names) =>
  Effect.map(
    Effect.exit(withChannel(sharedUrl, (channel) => channel.checkExchange(names.delayExchange(4)))),
    Exit.isSuccess
  )

const withDriver = (
  body: (driver: BrokerDriver, network: Network, names: Names) => Effect.Effect<void, unknown, Scope.Scope>,
  callTimeout: Duration.Input = "30 seconds"
) =>
  Effect.gen(function* () {
    const prefix = yield* temporaryPrefix()
    const network = yield* makeNetwork(sharedUrl)
    const driver = yield* RabbitBroker.makeDriver({ url: network.url, prefix, callTimeout })
    yield* body(driver, network, new Names(prefix))
    // silences the warnings about lost connections
  }).pipe(Effect.provide(Logger.layer([])))

// #region Calls to the server

const amqplib = dirname(createRequire(import.meta.url).resolve("amqplib"))
const load = createRequire(join(amqplib, "package.json"))

type Send = (this: unknown, channel: number, method: number, ...rest: ReadonlyArray<unknown>) => unknown

/** The connection of the installed amqplib, and the names of AMQP's methods. */
const { Connection } = load("./lib/connection.js") as {
  readonly Connection: { readonly prototype: Record<"sendMethod" | "sendMessage", Send> }
}
const { info } = load("./lib/defs.js") as {
  readonly info: (method: number) => { readonly name: string }
}

/** Runs an effect, and returns how often this process sent each method meanwhile, and how many channels were open at most. */
const sentDuring = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.suspend(() => {
    const sent: Record<string, number> = {}
    let open = 0
    let maxOpen = 0
    const { prototype } = Connection
    const { sendMessage, sendMethod } = prototype
    const counting = (send: Send): Send =>
      function (channel, method, ...rest) {
        const { name } = info(method)
        sent[name] = (sent[name] ?? 0) + 1
        if (name === "ChannelOpen") maxOpen = Math.max(maxOpen, ++open)
        if (name === "ChannelClose") open--
        return send.call(this, channel, method, ...rest)
      }
    Object.assign(prototype, { sendMethod: counting(sendMethod), sendMessage: counting(sendMessage) })
    return Effect.map(effect, (value) => ({ value, sent, maxOpen })).pipe(
      Effect.ensuring(Effect.sync(() => Object.assign(prototype, { sendMessage, sendMethod })))
    )
  })

// #endregion

await describeWithRabbit("the objects of a prefix on RabbitMQ", () => {
  for (const [name, call] of calls) {
    for (const [what, fail] of faults) {
      // a fetch ends with its connection only, so that it loses no message
      if (name === "claim" && what === "is too slow") continue
      it.live(`a ${name} that ${what} fails as retryable, and nothing is declared again`, () =>
        withDriver(
          (driver, network, names) =>
            Effect.gen(function* () {
              yield* retryUntilAccepted(call(driver))
              // a removed exchange shows what is declared
              yield* withChannel(sharedUrl, (channel) => channel.deleteExchange(names.delayExchange(4)))
              yield* network.halfOpen
              const calling = yield* Effect.forkChild(Effect.flip(call(driver)), { startImmediately: true })
              yield* fail(network, calling)
              assert.isFalse(driver.isPermanent?.(yield* Fiber.join(calling)))
              yield* retryUntilAccepted(call(driver))
              assert.isFalse(yield* isDeclared(names))
            }),
          "500 millis"
        )
      )
    }

    it.live(`a ${name} that finds its queue missing fails as retryable, and the next one declares it`, () =>
      withDriver((driver, _, names) =>
        Effect.gen(function* () {
          yield* call(driver)
          yield* withChannel(sharedUrl, (channel) => channel.deleteQueue(names.queue("default")))
          assert.isFalse(driver.isPermanent?.(yield* Effect.flip(call(driver))))
          yield* call(driver)
        })
      )
    )
  }

  it.live("a count of many queues asks once for the delay queues of each, over few channels at a time", () =>
    withDriver(({ counts, publish }) =>
      Effect.gen(function* () {
        const delayed = { id: "a", task: "t", queue: "default", priority: 0, body: "{}" }
        // 3 hours and 45 minutes take a few delay queues
        yield* publish([
          { ...delayed, delayMillis: 3_600_000 * 3.75 },
          { ...delayed, delayMillis: 0 }
        ])
        const queues = Arr.makeBy(1000, () => "default")
        // finds the delay queues
        const [{ delayed: waiting, ready }] = (yield* counts(queues)) as [QueueCounts]
        const { maxOpen, sent, value } = yield* sentDuring(counts(queues))
        assert.deepStrictEqual(
          new Set(value.map(({ delayed, ready }) => `${delayed} ${ready}`)),
          new Set(["1 1"])
        )
        assert.deepStrictEqual([waiting, ready], [1, 1])
        assert.strictEqual(sent["BasicPublish"], queues.length)
        assert.isAtMost(maxOpen, 16)
        assert.strictEqual(sent["ChannelOpen"], 40)
      })
    )
  )

  it.live("a count finds the delay queues that other processes have declared", () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryPrefix(["left", "right", "default"])
      const [first, second] = [
        yield* RabbitBroker.makeDriver({ url: sharedUrl, prefix }),
        yield* RabbitBroker.makeDriver({ url: sharedUrl, prefix })
      ]
      const queues = ["left", "default", "right"] as const
      const empty = { ready: 0, delayed: 0, claimed: 0 }
      assert.deepStrictEqual(yield* second.counts(queues), [empty, empty, empty])
      const message = { id: "a", task: "t", priority: 0, body: "{}" }
      yield* first.publish([
        { ...message, queue: "left", delayMillis: 3_600_000 },
        { ...message, queue: "right", delayMillis: 3_600_000 * 3.75 },
        { ...message, queue: "right", delayMillis: 60_000 }
      ])
      assert.deepStrictEqual(yield* second.counts(queues), [
        { ...empty, delayed: 1 },
        empty,
        { ...empty, delayed: 2 }
      ])
      assert.lengthOf(yield* second.purge("right", 10), 2)
    })
  )
})
