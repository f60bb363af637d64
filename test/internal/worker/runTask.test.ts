import { assert, describe, it } from "@effect/vitest"
import { Task, Worker } from "chicory"
import type { BrokerDriver } from "chicory/driver"
import { Effect, Exit, Latch, Layer, Schema, Scope } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"

const Work = Task.make("work", { payload: { n: Schema.Number } })

/** A worker of two slots over a broker that lets go of nothing until the gate opens. */
const make = Effect.fnUntraced(function* (options?: Worker.Options) {
  const gate = yield* Latch.make(false)
  const claims: Array<number> = []
  const fixture = yield* MemoryFixture.make({
    hints: false,
    broker: (driver: BrokerDriver<never>) => ({
      claim: (asked) => {
        claims.push(asked.max)
        return driver.claim(asked)
      },
      ack: (handles) => Effect.andThen(gate.await, driver.ack(handles))
    })
  })
  const ran: Array<number> = []
  const handler = Work.toLayer(({ n }) => Effect.sync(() => void ran.push(n)))
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Effect.andThen(gate.open, Scope.close(scope, exit)))
  yield* Layer.buildWithScope(
    Worker.layer([Work], { concurrency: 2, ...options }).pipe(
      Layer.provide(handler),
      Layer.provide(fixture.layer)
    ),
    scope
  )
  const send = (count: number) =>
    Effect.provideContext(Work.delayAll(Array.from({ length: count }, (_, n) => ({ n }))), fixture.context)
  return { claims, gate, ran, scope, send, fixture }
})

describe("slots and acks", () => {
  it.effect("an ended task frees its slot before its message is acked", () =>
    Effect.gen(function* () {
      const { ran, send } = yield* make()
      yield* send(3)
      yield* MemoryFixture.advance("1 second")
      assert.deepStrictEqual(ran, [0, 1, 2])
    })
  )

  it.effect("an ended handler frees its slot while its outcome is stored", () =>
    Effect.gen(function* () {
      const stored = yield* Latch.make(false)
      const ran: Array<number> = []
      const fixture = yield* MemoryFixture.make({
        hints: false,
        backend: (driver) => ({
          settle: (settlements) => Effect.andThen(stored.await, driver.settle(settlements))
        })
      })
      yield* Effect.addFinalizer(() => stored.open)
      yield* MemoryFixture.startWorker(
        fixture,
        Work,
        Work.toLayer(({ n }) => Effect.sync(() => void ran.push(n))),
        { concurrency: 2 }
      )
      yield* Effect.provideContext(
        Work.delayAll(Array.from({ length: 10 }, (_, n) => ({ n }))),
        fixture.context
      )
      yield* MemoryFixture.advance("5 seconds")
      // two outcomes are on their way without a slot, two with one
      assert.strictEqual(ran.length, 4)
      yield* stored.open
      yield* MemoryFixture.advance("5 seconds")
      assert.strictEqual(ran.length, 10)
    })
  )

  it.effect("unacked messages are bounded by the number of slots", () =>
    Effect.gen(function* () {
      const { gate, ran, send, fixture } = yield* make()
      yield* send(10)
      yield* MemoryFixture.advance("5 seconds")
      // two of them wait for their acks without a slot, two with one
      assert.strictEqual(ran.length, 4)
      yield* gate.open
      yield* MemoryFixture.advance("5 seconds")
      assert.strictEqual(ran.length, 10)
      assert.strictEqual(new Set(fixture.items("ack")).size, 10)
    })
  )

  it.effect("a claim asks for at most the free slots", () =>
    Effect.gen(function* () {
      const { claims, gate, send } = yield* make({ concurrency: 3 })
      yield* gate.open
      yield* send(20)
      yield* MemoryFixture.advance("5 seconds")
      assert.strictEqual(Math.max(...claims), 3)
    })
  )

  it.effect("a stopping worker waits until the messages of ended tasks are acked", () =>
    Effect.gen(function* () {
      const { gate, ran, scope, send } = yield* make({ drainTimeout: "1 minute" })
      yield* send(1)
      yield* MemoryFixture.advance("1 second")
      assert.strictEqual(ran.length, 1)
      const stopping = yield* MemoryFixture.fork(Scope.close(scope, Exit.void))
      yield* MemoryFixture.advance("10 seconds")
      MemoryFixture.assertPending(stopping)
      yield* gate.open
      yield* MemoryFixture.advance("1 second")
      assert.deepStrictEqual(MemoryFixture.exitOf(stopping), Exit.void)
    })
  )

  /** How many messages a worker of eight slots asks for, of a store that is waited for. */
  const claimsOf = Effect.fnUntraced(function* (prefersLargeBatches: boolean) {
    const claims: Array<number> = []
    const fixture = yield* MemoryFixture.make({
      hints: false,
      broker: (driver) => ({
        capabilities: { ...driver.capabilities, prefersLargeBatches },
        claim: (asked) => {
          claims.push(asked.max)
          return Effect.delay(driver.claim(asked), "1 millis")
        }
      })
    })
    yield* MemoryFixture.startWorker(
      fixture,
      Work,
      Work.toLayer(() => Effect.sleep("1 hour")),
      { concurrency: 8 }
    )
    yield* Effect.repeat(MemoryFixture.advance("10 millis"), { times: 3 })
    claims.length = 0
    yield* Effect.provideContext(
      Work.delayAll(Array.from({ length: 20 }, (_, n) => ({ n }))),
      fixture.context
    )
    yield* Effect.repeat(MemoryFixture.advance("10 millis"), { times: 5 })
    return claims
  })

  it.effect("a claim asks for half of the slots from a store that answers later", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* claimsOf(false)).slice(0, 2), [4, 4])
    })
  )

  it.effect("a claim asks for all of the slots from a store that prefers large batches", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* claimsOf(true))[0], 8)
    })
  )
})
