import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, Task } from "chicory"
import type { NewRecord } from "chicory/driver"
import { Effect, Exit, Fiber, Layer, Option, type Scope } from "effect"
import { Add, assertNothingEnqueued, claimAll, Keyed, onePayload } from "./support/enqueuing.ts"
import type * as MemoryFixture from "./support/memoryFixture.ts"
import { fork, exitOf, advance, startWorker as work, assertPending } from "./support/memoryFixture.ts"
import { test } from "./support/memoryTest.ts"

type Services = Scope.Scope | Backend.Backend | Broker.Broker

describe("delay, over a slow or failing store", () => {
  const slow: MemoryFixture.Options = {
    broker: (driver) => ({ publish: (messages) => Effect.delay(driver.publish(messages), "1 second") })
  }
  test(
    "returns only when the store has the task, which slows a fast producer",
    function* (on) {
      const sending = yield* fork(
        Effect.forEach(
          Array.from({ length: 5000 }, (_, a) => a),
          (a) => Add.send({ a, b: 0 }),
          { concurrency: "unbounded" }
        )
      )
      // 4 calls of 256 in flight
      assert.strictEqual(on.count("publish"), 4)
      assert.isAtMost(on.items("publish").length, 1024)
      yield* advance("4 seconds")
      assertPending(sending)
      yield* advance("1 second")
      assert.lengthOf(yield* Fiber.join(sending), 5000)
    },
    slow
  )

  test(
    "delayAll closes the iterator of its payloads when it is interrupted",
    function* () {
      let closed = false
      function* payloads() {
        try {
          for (let a = 0; ; a++) yield { a, b: 0 }
        } finally {
          closed = true
        }
      }
      const sending = yield* fork(Add.delayAll(payloads()))
      assert.isFalse(closed)
      // what was begun is finished first
      yield* fork(Fiber.interrupt(sending))
      yield* advance("5 seconds")
      assert.isTrue(closed)
    },
    slow
  )

  test(
    "finishes the enqueue of an interrupted caller, and those of the others",
    function* (on) {
      const first = yield* fork(Add.send(onePayload))
      const second = yield* Effect.forkChild(Add.send({ a: 2, b: 2 }))
      const third = yield* fork(Add.send({ a: 3, b: 3 }))
      yield* fork(Fiber.interrupt(first))
      yield* advance("5 seconds")
      assert.isTrue(Exit.isSuccess(exitOf(second)))
      assert.isTrue(Exit.isSuccess(exitOf(third)))
      assert.lengthOf(on.items("publish"), 3)
      assert.lengthOf(on.items("markPublished"), 3)
    },
    slow
  )

  test(
    "fails only the caller whose message the broker refuses for good",
    function* (on) {
      const exits = yield* Effect.forEach(
        Array.from({ length: 100 }, (_, a) => a),
        (a) => Effect.exit(Add.send({ a, b: 0 })),
        { concurrency: "unbounded" }
      )
      const failed = exits.flatMap((exit, a) => (Exit.isFailure(exit) ? [a] : []))
      assert.deepStrictEqual(failed, [42])
      const error = Option.getOrThrow(Exit.findErrorOption(exits[42]!))
      assert(error instanceof Broker.BrokerError)
      assert.isFalse(error.retryable)
      const [counts] = yield* Broker.counts(["default"])
      assert.strictEqual(counts?.ready, 99)
      assert.isAtMost(on.count("publish"), 16)
    },
    {
      broker: (driver) => ({
        publish: (messages) =>
          messages.some(({ body }) => body.includes(`"a":42`))
            ? Effect.fail("refused")
            : driver.publish(messages),
        isPermanent: () => true
      })
    }
  )

  test(
    "delayAll reports the accepted ids when the broker refuses one",
    function* () {
      const error = yield* Effect.flip(Add.delayAll([1, 2, 42, 3].map((a) => ({ a, b: 0 }))))
      assert(error instanceof Task.PartialEnqueue)
      assert.instanceOf(error.error, Broker.BrokerError)
      assert.lengthOf(error.accepted, 3)
    },
    {
      broker: (driver) => ({
        publish: (messages) =>
          messages.some(({ body }) => body.includes(`"a":42`))
            ? Effect.fail("refused")
            : driver.publish(messages),
        isPermanent: () => true
      })
    }
  )

  test(
    "fails every caller of a batch with a retryable error",
    function* () {
      const exits = yield* Effect.forEach([1, 2, 3], (a) => Effect.exit(Add.send({ a, b: 0 })), {
        concurrency: "unbounded"
      })
      for (const exit of exits) {
        const error = Option.getOrThrow(Exit.findErrorOption(exit))
        assert(error instanceof Broker.BrokerError)
        assert.isTrue(error.retryable)
      }
    },
    { broker: () => ({ publish: () => Effect.fail("cut off") }) }
  )

  test(
    "fails with BrokerError when the driver dies",
    function* () {
      const error = yield* Effect.flip(Add.send(onePayload))
      assert(error instanceof Broker.BrokerError)
      assert.include(error.message, "memory broker: publish failed")
      assert.include(error.message, "a bug")
    },
    { broker: () => ({ publish: () => Effect.die(new Error("a bug")) }) }
  )

  test(
    "fails with BrokerError when the driver throws, and serves the next call",
    function* () {
      const error = yield* Effect.flip(Add.send(onePayload))
      assert(error instanceof Broker.BrokerError)
      assert.include(error.message, "a bug")
      for (let n = 0; n < 10; n++) yield* Add.send(onePayload)
    },
    {
      broker: (driver) => {
        let calls = 0
        return {
          publish: (messages) => {
            if (calls++ === 0) throw new Error("a bug")
            return driver.publish(messages)
          }
        }
      }
    }
  )

  const failing = (times: number): MemoryFixture.Options => ({
    broker: (driver) => {
      let failures = 0
      return {
        publish: (messages) => (failures++ < times ? Effect.fail("cut off") : driver.publish(messages))
      }
    }
  })

  test(
    "guarantee 1: resends the message of a reserved key under the same id after a crash",
    function* (on) {
      const error = yield* Effect.flip(Keyed.delay({ order: "o1", amount: 1 }))
      assert.instanceOf(error, Broker.BrokerError)
      assert.deepStrictEqual(yield* claimAll(on), [])
      const [reserved] = on.items("create") as ReadonlyArray<NewRecord>
      const second = yield* Keyed.delay({ order: "o1", amount: 1 })
      assert.strictEqual(second.taskId, reserved?.id)
      const [message, ...more] = yield* claimAll(on)
      assert.strictEqual(message?.id, second.taskId)
      assert.deepStrictEqual(more, [])
      yield* Keyed.delay({ order: "o1", amount: 1 })
      assert.deepStrictEqual(yield* claimAll(on), [])
    },
    failing(1)
  )

  test(
    "guarantee 1: sends the message twice after a crash before its mark, and the task runs once",
    function* (on) {
      assert.instanceOf(yield* Effect.flip(Keyed.delay({ order: "o1", amount: 1 })), Backend.BackendError)
      let runs = 0
      yield* work(
        on,
        Keyed,
        Keyed.toLayer(({ order }) => Effect.sync(() => `${order} ${++runs}`))
      )
      const result = yield* Keyed.delay({ order: "o1", amount: 1 })
      yield* advance("1 minute")
      assert.strictEqual(yield* AsyncResult.get(result), "o1 1")
      assert.strictEqual(runs, 1)
    },
    {
      backend: (driver) => {
        let failures = 0
        return {
          markPublished: (records) =>
            failures++ === 0 ? Effect.fail("cut off") : driver.markPublished(records)
        }
      }
    }
  )

  test(
    "guarantee 1: sends no message when the record cannot be reserved",
    function* (on) {
      const error = yield* Effect.flip(Add.send(onePayload))
      assert.instanceOf(error, Backend.BackendError)
      assert.lengthOf(on.items("publish"), 0)
    },
    { backend: () => ({ create: () => Effect.fail("cut off") }) }
  )
})

describe("delay, over a broker without a feature", () => {
  const poor: MemoryFixture.Options = {
    broker: (driver) => ({
      capabilities: { ...driver.capabilities, priorities: 1, maxDelayMillis: 60_000 }
    })
  }
  test(
    "fails with Unsupported and enqueues nothing",
    function* (on) {
      const Urgent = Task.make("urgent", { priority: 200 })
      const refused = [
        yield* Effect.flip(Add.delay(onePayload, { priority: 1 })),
        yield* Effect.flip(Urgent.delay()),
        yield* Effect.flip(Add.delay(onePayload, { delay: "61 seconds" })),
        yield* Effect.flip(Add.delay(onePayload, { at: 60_001 }))
      ]
      const messages = refused.map((error) => {
        assert(error instanceof Task.Unsupported)
        return error.message
      })
      assert.deepStrictEqual(messages, [
        "the memory broker does not support priorities",
        "the memory broker does not support priorities",
        "the memory broker does not support a delay of more than 60000 milliseconds",
        "the memory broker does not support a delay of more than 60000 milliseconds"
      ])
      const many = yield* Effect.flip(Add.delayAll([onePayload, onePayload], { priority: 1 }))
      assert.instanceOf(many.error, Task.Unsupported)
      assert.deepStrictEqual(many.accepted, [])
      yield* assertNothingEnqueued(on)
      yield* Add.delay(onePayload, { delay: "1 minute" })
    },
    poor
  )
})

describe("without a backend", () => {
  const fireAndForget = (name: string, body: () => Effect.fn.Return<void, unknown, Services>) =>
    it.effect(name, () =>
      Effect.gen(body).pipe(Effect.provide(Layer.mergeAll(Backend.layerNotConfigured, Broker.layerMemory)))
    )

  fireAndForget("sends tasks", function* () {
    yield* Add.send(onePayload)
    assert.lengthOf(yield* Add.delayAll([onePayload, onePayload]), 2)
    const [counts] = yield* Broker.counts(["default"])
    assert.strictEqual(counts?.ready, 3)
  })

  fireAndForget("fails with BackendNotConfigured for an id or a key and enqueues nothing", function* () {
    for (const error of [
      yield* Effect.flip(Add.delay(onePayload, { id: "my id" })),
      yield* Effect.flip(Keyed.delay({ order: "o1", amount: 1 })),
      (yield* Effect.flip(Keyed.delayAll([{ order: "o1", amount: 1 }]))).error
    ]) {
      assert(error instanceof Backend.BackendNotConfigured)
      assert.include(error.message, "needs a backend")
    }
    const [counts] = yield* Broker.counts(["default"])
    assert.strictEqual(counts?.ready, 0)
  })
})
