/** The layers that measure stores. */
import { assert, describe, it } from "@effect/vitest"
import { Backend, Broker, Task } from "chicory"
import type { BackendDriver, BrokerDriver } from "chicory/driver"
import {
  Array as Arr,
  Cause,
  Effect,
  Exit,
  Layer,
  Logger,
  Metric,
  References,
  Schema,
  type Scope
} from "effect"
import * as MemoryFixture from "./support/memoryFixture.ts"

const { advance, flush } = MemoryFixture

const envelope = (queue: string, delayMillis = 0) => ({
  id: "a",
  task: "work",
  queue,
  priority: 100,
  delayMillis,
  body: "{}"
})

/** Returns the values of a gauge, by the values of its own attributes. */
const gauge = (id: string, ...keys: ReadonlyArray<string>) =>
  Effect.map(Metric.snapshot, (all) =>
    Object.fromEntries(
      all
        .filter((metric) => metric.id === id)
        .map(({ attributes, state }) => [
          keys.map((key) => attributes?.[key] ?? "").join(" "),
          (state as { readonly value: number }).value
        ])
    )
  )

const depths = gauge("chicory.queue.depth", "messaging.destination.name", "chicory.message.state")
const ages = gauge("chicory.queue.oldest_age", "messaging.destination.name")
const deadLetters = gauge("chicory.dead_letter.count", "chicory.backend", "chicory.task.name")

const test = (name: string, body: () => Effect.fn.Return<void, unknown, Scope.Scope>) =>
  it.effect(name, () => Effect.provideService(Effect.gen(body), Metric.MetricRegistry, new Map()))

/** Starts a layer over a fixture until the scope closes. */
const startLayer = (
  { layer }: MemoryFixture.MemoryFixture,
  measuring: Layer.Layer<never, never, Backend.Backend | Broker.Broker>
) => Effect.andThen(Layer.build(Layer.provide(measuring, layer)), flush)

/** A fixture whose store can go away. */
const makeOutage = Effect.fnUntraced(function* () {
  const outage = { isAway: false, never: false }
  const fallible = <A, E>(call: Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | string> =>
      outage.never ? Effect.never : outage.isAway ? Effect.fail("gone") : call
    )
  const fixture = yield* MemoryFixture.make({
    broker: (driver: BrokerDriver<never>) => ({ counts: (queues) => fallible(driver.counts(queues)) }),
    backend: (driver: BackendDriver<never>) => ({
      countDeadLetters: (task) => fallible(driver.countDeadLetters(task))
    })
  })
  return { outage, fixture }
})

/** Returns what an effect logs, at Info and above. */
const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const lines: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    lines.push(`${logLevel} ${String(Arr.ensure(message)[0])}`)
  })
  return Effect.as(effect, lines).pipe(
    Effect.provide(Logger.layer([logger])),
    Effect.provideService(References.MinimumLogLevel, "Info")
  )
}

const assertDefect = Effect.fnUntraced(function* (
  measuring: Layer.Layer<never, never, Backend.Backend | Broker.Broker>,
  message: string
) {
  const fixture = yield* MemoryFixture.make()
  const exit = yield* Effect.exit(startLayer(fixture, measuring))
  assert(Exit.isFailure(exit))
  const error = Cause.squash(exit.cause)
  assert(error instanceof RangeError)
  assert.include(error.message, message)
})

describe("Broker.depthMetrics", () => {
  test("measures queues at once, by state, and again at intervals", function* () {
    const fixture = yield* MemoryFixture.make()
    yield* fixture.brokerDriver.publish([envelope("mail"), envelope("mail"), envelope("mail", 3_600_000)])
    yield* fixture.brokerDriver.claim({ queues: ["mail"], max: 1, leaseMillis: 60_000, worker: "w" })
    yield* startLayer(fixture, Broker.depthMetrics({ queues: ["mail", "idle"] }))
    assert.deepStrictEqual(yield* depths, {
      "mail ready": 1,
      "mail delayed": 1,
      "mail claimed": 1,
      "idle ready": 0,
      "idle delayed": 0,
      "idle claimed": 0
    })
    yield* fixture.brokerDriver.publish([envelope("idle")])
    yield* advance("14 seconds")
    assert.strictEqual((yield* depths)["idle ready"], 0)
    yield* advance("1 second")
    assert.strictEqual((yield* depths)["idle ready"], 1)
  })

  test("counts all queues in one call, each once", function* () {
    const fixture = yield* MemoryFixture.make()
    yield* startLayer(fixture, Broker.depthMetrics({ queues: ["a", "b", "a"], every: "1 minute" }))
    yield* advance("1 minute")
    assert.strictEqual(fixture.count("counts"), 2)
    assert.deepStrictEqual(fixture.items("counts"), ["a", "b", "a", "b"])
  })

  test("reports messages that were parked or set aside where there are any", function* () {
    let more: { readonly parked?: number; readonly setAside?: number } = { parked: 2, setAside: 3 }
    const fixture = yield* MemoryFixture.make({
      broker: () => ({ counts: () => Effect.sync(() => [{ ready: 0, delayed: 0, claimed: 0, ...more }]) })
    })
    yield* startLayer(fixture, Broker.depthMetrics({ queues: ["mail"] }))
    const { "mail parked": parked, "mail set_aside": setAside } = yield* depths
    assert.deepStrictEqual([parked, setAside], [2, 3])
    more = {}
    yield* advance("15 seconds")
    assert.doesNotHaveAnyKeys(yield* depths, ["mail parked", "mail set_aside"])
  })

  test("reports the age of the oldest message in seconds, and none where the store does not know it", function* () {
    const fixture = yield* MemoryFixture.make({
      broker: () => ({
        counts: () =>
          Effect.succeed([
            { ready: 1, delayed: 0, claimed: 0, oldestMillis: 1500 },
            { ready: 1, delayed: 0, claimed: 0 }
          ])
      })
    })
    yield* startLayer(fixture, Broker.depthMetrics({ queues: ["mail", "other"] }))
    assert.deepStrictEqual(yield* ages, { mail: 1.5 })
  })

  test("reports no old values while the store is away, and goes on afterwards", function* () {
    const { fixture, outage } = yield* makeOutage()
    const lines = yield* logged(
      Effect.gen(function* () {
        yield* startLayer(fixture, Broker.depthMetrics({ queues: ["mail"], every: "10 seconds" }))
        outage.isAway = true
        yield* Effect.repeat(advance("10 seconds"), { times: 9 })
        assert.deepStrictEqual(yield* depths, {})
        outage.isAway = false
        yield* advance("10 seconds")
        assert.strictEqual((yield* depths)["mail ready"], 0)
      })
    )
    assert.deepStrictEqual(lines, [
      "Warn Failed to measure the depth of queues for 30.0 s; trying again",
      "Info Recovered after 100.0 s of failures to measure the depth of queues"
    ])
  })

  test("takes a store that does not answer within 30 seconds for one that is away", function* () {
    const { fixture, outage } = yield* makeOutage()
    yield* startLayer(fixture, Broker.depthMetrics({ queues: ["mail"] }))
    outage.never = true
    yield* advance("15 seconds")
    yield* advance("29 seconds")
    assert.notDeepEqual(yield* depths, {})
    yield* advance("1 second")
    assert.deepStrictEqual(yield* depths, {})
    outage.never = false
    yield* advance("15 seconds")
    assert.notDeepEqual(yield* depths, {})
  })

  test("warns of a store that does not answer for long", function* () {
    const { fixture, outage } = yield* makeOutage()
    const lines = yield* logged(
      Effect.gen(function* () {
        yield* startLayer(fixture, Broker.depthMetrics({ queues: ["mail"] }))
        outage.never = true
        yield* Effect.repeat(advance("15 seconds"), { times: 11 })
      })
    )
    assert.deepStrictEqual(lines, ["Warn Failed to measure the depth of queues for 45.0 s; trying again"])
  })

  test("reports nothing after its scope has closed", function* () {
    const fixture = yield* MemoryFixture.make()
    yield* Effect.scoped(startLayer(fixture, Broker.depthMetrics({ queues: ["mail"] })))
    assert.deepStrictEqual(yield* depths, {})
    yield* advance("1 minute")
    assert.strictEqual(fixture.count("counts"), 1)
  })

  test("refuses more than 200 queues", function* () {
    yield* assertDefect(
      Broker.depthMetrics({ queues: Arr.makeBy(201, String) }),
      "Broker.depthMetrics: the number of queues must be a whole number from 1 to 200, but is 201"
    )
  })

  test("refuses an interval of zero", function* () {
    yield* assertDefect(Broker.depthMetrics({ queues: ["mail"], every: 0 }), "Broker.depthMetrics: every")
  })
})

describe("Backend.deadLetterMetrics", () => {
  const Mail = Task.make("mail", { payload: Schema.Int })

  const park = (fixture: MemoryFixture.MemoryFixture, id: string) =>
    Effect.gen(function* () {
      yield* fixture.create(id, { task: "mail" })
      yield* fixture.start(id, { task: "mail" })
      yield* fixture.settle(id, {
        _tag: "Failure",
        exit: "{}",
        retentionMillis: undefined,
        deadLetter: { reason: "Died", body: "{}", queue: "default", retentionMillis: 3_600_000 }
      })
    })

  test("counts all dead letters together, at once and at intervals", function* () {
    const fixture = yield* MemoryFixture.make()
    yield* park(fixture, "a")
    yield* startLayer(fixture, Backend.deadLetterMetrics())
    assert.deepStrictEqual(yield* deadLetters, { "memory ": 1 })
    yield* park(fixture, "b")
    yield* advance("1 minute")
    assert.deepStrictEqual(yield* deadLetters, { "memory ": 2 })
  })

  test("counts the dead letters of tasks one by one", function* () {
    const fixture = yield* MemoryFixture.make()
    yield* park(fixture, "a")
    yield* startLayer(fixture, Backend.deadLetterMetrics({ tasks: [Mail, { name: "other" }] }))
    assert.deepStrictEqual(yield* deadLetters, { "memory mail": 1, "memory other": 0 })
  })

  test("reports no old values while the backend is away, and goes on afterwards", function* () {
    const { fixture, outage } = yield* makeOutage()
    yield* startLayer(fixture, Backend.deadLetterMetrics({ every: "10 seconds" }))
    outage.isAway = true
    yield* advance("10 seconds")
    assert.deepStrictEqual(yield* deadLetters, {})
    outage.isAway = false
    yield* advance("10 seconds")
    assert.deepStrictEqual(yield* deadLetters, { "memory ": 0 })
  })

  test("warns of a backend that is away for long, also where it is asked once a minute", function* () {
    const { fixture, outage } = yield* makeOutage()
    const lines = yield* logged(
      Effect.gen(function* () {
        yield* startLayer(fixture, Backend.deadLetterMetrics())
        outage.isAway = true
        yield* Effect.repeat(advance("1 minute"), { times: 4 })
        outage.isAway = false
        yield* advance("1 minute")
      })
    )
    assert.deepStrictEqual(lines, [
      "Warn Failed to measure the number of dead letters for 60.0 s; trying again",
      "Info Recovered after 300.0 s of failures to measure the number of dead letters"
    ])
  })

  test("refuses more than 200 tasks", function* () {
    yield* assertDefect(
      Backend.deadLetterMetrics({ tasks: Arr.makeBy(201, () => Mail) }),
      "Backend.deadLetterMetrics: the number of tasks must be a whole number from 1 to 200, but is 201"
    )
  })
})
