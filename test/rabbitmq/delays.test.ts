/** How long messages are delayed, through which queues they pass, and that they arrive unchanged. */
import { assert, describe, it } from "@effect/vitest"
import { Task } from "chicory"
import { Array as Arr, Effect, Fiber, Queue, Schema, type Scope, Stream } from "effect"
import type { Delivery, BrokerDriver, Envelope } from "../../src/BrokerDriver.ts"
import * as delayQueues from "../../src/rabbitmq/delayQueues.ts"
import { Names } from "../../src/rabbitmq/Names.ts"
import * as RabbitBroker from "../../src/rabbitmq/RabbitBroker.ts"
import { eventually } from "../support/storeFixture.ts"
import { channelOf, describeWithRabbit, openConnection, sharedUrl } from "./server.ts"
import { openStore, sharedBackend, temporaryPrefix } from "./shared.ts"

/** A delay is longer than asked for by at most this, or by 1/128 of it: milliseconds. */
const SLACK_MILLIS = 64
/** The round trip to the server, and the way from queue to queue, on a machine that is not busy: milliseconds. */
const TRANSIT_MILLIS = 50
/** Queues that a delayed message passes at most. */
const MOST_HOPS = 8

// #region What the server does

/** Whether a topic exchange matches a routing key with a pattern: `*` is any one word. */
const matches = (pattern: string, key: string): boolean => {
  const words = key.split(".")
  const wanted = pattern.split(".")
  return words.length === wanted.length && wanted.every((word, i) => word === "*" || word === words[i])
}

/** The waits of a message, and the queues that it reaches, where each of `words` has all its delay queues. */
const route = (
  rounded: number,
  word: string,
  words: ReadonlyArray<string>
): { readonly waits: ReadonlyArray<number>; readonly ends: ReadonlyArray<string> } => {
  const key = delayQueues.routingKey(rounded, word)
  const waits: Array<number> = []
  const [first] = delayQueues.exponentsOf(rounded)
  for (const exponent of delayQueues.exponents.filter((exponent) => exponent <= first!)) {
    const waiting = words.filter((one) => matches(delayQueues.bindingPattern(exponent, true, one), key))
    const goesOn = matches(delayQueues.bindingPattern(exponent, false, "*"), key)
    assert.strictEqual(
      waiting.length + Number(goesOn),
      1,
      `exactly one route from the exchange of ${exponent}`
    )
    for (const one of waiting) {
      assert.strictEqual(one, word)
      waits.push(2 ** exponent)
    }
  }
  return {
    waits,
    ends: words.filter((one) => matches(delayQueues.bindingPattern(undefined, false, one), key))
  }
}

// #endregion

/** Delays from the shortest to the longest, most of them short. */
const delays: ReadonlyArray<number> = [
  ...Array.from({ length: 300 }, (_, i) => i + 1),
  ...delayQueues.exponents.flatMap((exponent) => [-1, -0.5, 0, 0.5, 1].map((more) => 2 ** exponent + more)),
  ...Array.from({ length: 300 }, (_, i) => Math.round(1.0735 ** i)),
  0.001,
  1000.7,
  delayQueues.MAX_DELAY_MILLIS - 33,
  delayQueues.MAX_DELAY_MILLIS - 32,
  delayQueues.MAX_DELAY_MILLIS - 1,
  delayQueues.MAX_DELAY_MILLIS
].filter((millis) => millis <= delayQueues.MAX_DELAY_MILLIS)

describe("delays as sums of powers of two", () => {
  it("a rounded delay is not shorter than asked for, and at most 1/128 or 64 ms longer", () => {
    for (const millis of delays) {
      const rounded = delayQueues.roundDelay(millis)
      assert.isAtLeast(rounded, millis)
      assert.isAtMost(rounded - millis, Math.max(SLACK_MILLIS, millis / 128), `${millis} became ${rounded}`)
      assert.isAtMost(rounded, delayQueues.MAX_DELAY_MILLIS)
    }
  })

  it("a delay beyond the longest is rounded to the longest", () => {
    assert.strictEqual(delayQueues.roundDelay(delayQueues.MAX_DELAY_MILLIS + 1), delayQueues.MAX_DELAY_MILLIS)
    assert.strictEqual(delayQueues.roundDelay(Number.MAX_SAFE_INTEGER), delayQueues.MAX_DELAY_MILLIS)
  })

  it("the powers of a delay add up to it, the highest first", () => {
    for (const millis of delays) {
      const rounded = delayQueues.roundDelay(millis)
      const exponents = delayQueues.exponentsOf(rounded)
      assert.strictEqual(
        exponents.reduce((total, exponent) => total + 2 ** exponent, 0),
        rounded
      )
      assert.deepStrictEqual(
        exponents,
        exponents.toSorted((a, b) => b - a)
      )
      assert.isAtLeast(exponents.at(-1)!, delayQueues.LOWEST_EXPONENT)
    }
  })

  it("a delay below a week needs at most eight queues", () => {
    for (const millis of delays.filter((millis) => millis < 604_800_000)) {
      assert.isAtMost(delayQueues.exponentsOf(delayQueues.roundDelay(millis)).length, 8, `for ${millis}`)
    }
  })

  it("a message passes through the delay queues of its powers only, and reaches its own queue only", () => {
    const words = ["default", "0", "1", "emails%2Eurgent"]
    for (const millis of delays) {
      for (const word of words) {
        const rounded = delayQueues.roundDelay(millis)
        const { ends, waits } = route(rounded, word, words)
        assert.deepStrictEqual(
          waits,
          delayQueues.exponentsOf(rounded).map((exponent) => 2 ** exponent)
        )
        assert.deepStrictEqual(ends, [word])
      }
    }
  })
})

// #region On a server

const envelope = (id: string, more?: Partial<Envelope>): Envelope => ({
  id,
  task: "mail",
  queue: "default",
  priority: 0,
  delayMillis: 0,
  body: `{"message":"${id}"}`,
  ...more
})

/**
 * Opens a driver under a prefix, with its own connections. No test is about the timeout of calls, and a busy server may
 * take more than the default to declare many queues.
 */
const open = (prefix: string) =>
  RabbitBroker.makeDriver({ url: sharedUrl, prefix, callTimeout: "25 seconds" })

interface Arrival {
  readonly delivery: Delivery
  /** By `performance.now()`. */
  readonly at: number
}

/** Subscribes to the default queue and claims what arrives. Returns an effect that waits for the next arrival. */
const subscribe = Effect.fnUntraced(function* (
  driver: BrokerDriver
): Effect.fn.Return<Effect.Effect<Arrival>, never, Scope.Scope> {
  const arrivals = yield* Queue.unbounded<Arrival>()
  yield* driver.ready(["default"], 100).pipe(
    Stream.mapEffect(() => driver.claim({ queues: ["default"], max: 100, leaseMillis: 60_000, worker: "w" })),
    Stream.runForEach((deliveries) =>
      Effect.sync(() => {
        const at = performance.now()
        for (const delivery of deliveries) Queue.offerUnsafe(arrivals, { delivery, at })
      })
    ),
    Effect.forkScoped
  )
  return Queue.take(arrivals)
})

/** The exponents of a queue's delay queues that exist on the server. */
const queuesOf = Effect.fnUntraced(function* (prefix: string, queue: string) {
  const names = new Names(prefix)
  const connection = yield* openConnection(sharedUrl)
  return yield* Effect.filter(delayQueues.exponents, (exponent) =>
    Effect.flatMap(channelOf(connection), (channel) =>
      Effect.isSuccess(Effect.tryPromise(() => channel.checkQueue(names.delayQueue(queue, exponent))))
    )
  )
}, Effect.scoped)

/** Adds a test in real time, with a driver under its own prefix. */
const test = (
  name: string,
  body: (driver: BrokerDriver, prefix: string) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryPrefix(["default", "other"])
      yield* body(yield* open(prefix), prefix)
    })
  )

/** The server's clock runs faster by up to 1 % while it follows a system clock that was adjusted (Erlang's time correction). */
const MOST_CORRECTION = 0.01

await describeWithRabbit("delays on RabbitMQ", () => {
  describe.concurrent("messages", () => {
    test("messages that are published together arrive when they are due, never early and at most a little late", (driver) =>
      Effect.gen(function* () {
        const delays: Arr.NonEmptyArray<number> = [10, 100, 256, 1000, 2016, 3000]
        const rounds = ["first", "second", "third"]
        const arrival = yield* subscribe(driver)
        const publish = Effect.fnUntraced(function* (round: string) {
          const before = performance.now()
          yield* driver.publish(
            Arr.map(delays, (delayMillis) => envelope(`${round} ${delayMillis}`, { delayMillis }))
          )
          return { before, after: performance.now() }
        })
        // the first round also declares the delay queues
        yield* publish("none")
        yield* Effect.forEach(delays, () => arrival)
        const sent = new Map<string, { readonly before: number; readonly after: number }>()
        for (const round of rounds) {
          sent.set(round, yield* publish(round))
          yield* Effect.sleep("400 millis")
        }
        // messages without a delay show how long the way itself takes meanwhile
        const pings: Array<number> = []
        yield* Effect.sync(() => pings.push(performance.now())).pipe(
          Effect.flatMap((count) => driver.publish([envelope(`ping ${count - 1}`)])),
          Effect.delay("100 millis"),
          Effect.forever,
          Effect.forkScoped
        )
        const transits: Array<number> = []
        const lateness = new Map<number, number>()
        for (let n = 0; n < rounds.length * delays.length;) {
          const { at, delivery } = yield* arrival
          const [round, millis] = delivery.id!.split(" ")
          if (round === "ping") {
            transits.push(at - pings[Number(millis)]!)
            continue
          }
          n++
          const { after, before } = sent.get(round!)!
          assert.isAtLeast(at - before, Number(millis) * (1 - MOST_CORRECTION))
          // ages are counted in whole milliseconds
          assert.isAtMost(delivery.ageMillis, Math.max(0, at - before - Number(millis)) + 1)
          const seen = lateness.get(Number(millis)) ?? Infinity
          lateness.set(Number(millis), Math.min(seen, at - after - Number(millis)))
        }
        const median = transits.toSorted((a, b) => a - b)[transits.length >> 1]!
        const transit = Math.max(TRANSIT_MILLIS, MOST_HOPS * median)
        for (const millis of delays) {
          assert.isAtMost(lateness.get(millis)!, 100 + transit, `the least lateness of a delay of ${millis}`)
        }
      }))

    test("a message with a short delay does not wait behind one with a long delay", (driver) =>
      Effect.gen(function* () {
        const arrival = yield* subscribe(driver)
        yield* driver.publish([envelope("long", { delayMillis: 60_000 })])
        yield* driver.publish([envelope("middle", { delayMillis: 1500 })])
        yield* driver.publish([envelope("short", { delayMillis: 300 })])
        const published = performance.now()
        assert.strictEqual((yield* arrival).delivery.id, "short")
        assert.strictEqual((yield* arrival).delivery.id, "middle")
        assert.isBelow(performance.now() - published, 10_000)
        assert.deepStrictEqual(yield* driver.counts(["default"]), [{ ready: 0, delayed: 1, claimed: 2 }])
      }))

    test("messages with the same delay arrive in the order in which they were published", (driver) =>
      Effect.gen(function* () {
        const arrival = yield* subscribe(driver)
        const ids = Array.from({ length: 50 }, (_, n) => `${n}`)
        for (const id of ids) yield* driver.publish([envelope(id, { delayMillis: 700 })])
        const arrived = yield* Effect.forEach(ids, () => arrival)
        assert.deepStrictEqual(
          arrived.map(({ delivery }) => delivery.id),
          ids
        )
      }))

    test("a delayed message arrives as it was published", (driver) =>
      Effect.gen(function* () {
        const arrival = yield* subscribe(driver)
        const published = envelope("ünïcode \u0000 🌶️", {
          task: "mail.send ✉",
          generation: 7,
          incarnation: "x1",
          delayMillis: 200,
          body: `{"text":"grüße 🌶️ \u0001"}`
        })
        yield* driver.publish([published])
        const { delivery } = yield* arrival
        const { ageMillis: _, handle: __, waitedMillis: _____, ...rest } = delivery
        const { delayMillis: ___, priority: ____, ...expected } = published
        assert.deepStrictEqual(rest, expected)
      }))

    test("a message that is released with a delay several times stays as it was published", (driver) =>
      Effect.gen(function* () {
        const arrival = yield* subscribe(driver)
        const published = envelope("a", { generation: 2, incarnation: "x1", delayMillis: 40 })
        yield* driver.publish([published])
        for (let round = 0; round < 5; round++) {
          const { delivery } = yield* arrival
          const { ageMillis: _, handle, waitedMillis: ____, ...rest } = delivery
          const { delayMillis: __, priority: ___, ...expected } = published
          assert.deepStrictEqual(rest, expected)
          yield* driver.release([{ handle, afterMillis: 40 }])
        }
        yield* arrival
        assert.deepStrictEqual(yield* driver.counts(["default"]), [{ ready: 0, delayed: 0, claimed: 1 }])
      }))

    test("a message that keeps its due time keeps its age, with fractional delays too", (driver) =>
      Effect.gen(function* () {
        const arrival = yield* subscribe(driver)
        yield* driver.publish([envelope("a", { delayMillis: 40.5 })])
        const { delivery } = yield* arrival
        assert.isAtLeast(delivery.ageMillis, Math.floor(delayQueues.roundDelay(40.5) - 40.5))
        yield* driver.release([{ handle: delivery.handle, afterMillis: 300.25, preserveDueTime: true }])
        const again = yield* arrival
        assert.isAtLeast(again.delivery.ageMillis, delivery.ageMillis + 300)
      }))

    it.live("a delay of weeks is accepted, and one beyond the longest is Unsupported", () =>
      Effect.gen(function* () {
        const prefix = yield* temporaryPrefix()
        const Mail = Task.make("mail", { payload: Schema.String })
        yield* Effect.gen(function* () {
          yield* Mail.delay("later", { delay: 2 ** 31 })
          const error = yield* Effect.flip(Mail.delay("never", { delay: delayQueues.MAX_DELAY_MILLIS + 1 }))
          assert.strictEqual(error._tag, "Unsupported")
        }).pipe(Effect.provideContext(yield* openStore(prefix, yield* sharedBackend)))
        assert.deepStrictEqual(yield* queuesOf(prefix, "default"), [31])
        const driver = yield* open(prefix)
        assert.deepStrictEqual(yield* driver.counts(["default"]), [{ ready: 0, delayed: 1, claimed: 0 }])
      })
    )
  })

  describe.concurrent("delay queues", () => {
    test("a delay declares the queues of its powers and no others", (driver, prefix) =>
      Effect.gen(function* () {
        yield* driver.publish([envelope("a", { delayMillis: 60_000 })])
        assert.deepStrictEqual(
          yield* queuesOf(prefix, "default"),
          delayQueues.exponentsOf(delayQueues.roundDelay(60_000))
        )
        assert.deepStrictEqual(yield* queuesOf(prefix, "other"), [])
      }))

    test("a delay queue is declared by one process at a time, and the others wait for it", (driver, prefix) =>
      Effect.gen(function* () {
        const making = `${new Names(prefix).delayQueue("default", 7)}.making`
        const other = yield* Effect.flatMap(openConnection(sharedUrl), channelOf)
        yield* Effect.promise(() => other.assertQueue(making, { exclusive: true, durable: false }))
        const publishing = yield* Effect.forkChild(driver.publish([envelope("a", { delayMillis: 100 })]))
        yield* Effect.sleep("1500 millis")
        assert.deepStrictEqual(yield* queuesOf(prefix, "default"), [])
        assert.isUndefined(publishing.pollUnsafe())
        // the other declarer is gone
        yield* Effect.promise(() => other.deleteQueue(making))
        yield* Fiber.join(publishing)
        assert.deepStrictEqual(yield* queuesOf(prefix, "default"), [7])
      }))

    it.live(
      "messages arrive although several processes declare their delay queue at the same moment",
      () =>
        Effect.gen(function* () {
          const queues = Array.from({ length: 15 }, (_, n) => `queue ${n}`)
          const prefix = yield* temporaryPrefix(queues)
          const drivers = yield* Effect.forEach([1, 2, 3], () => open(prefix), { concurrency: 3 })
          yield* Effect.forEach(queues, (queue) =>
            Effect.gen(function* () {
              yield* Effect.forEach(
                drivers,
                (driver, n) => driver.publish([envelope(`${n}`, { queue, delayMillis: 100 })]),
                { concurrency: 3 }
              )
              yield* eventually(
                Effect.map(drivers[0]!.counts([queue]), ([counts]) => counts!.ready === drivers.length)
              )
            })
          )
        }),
      30_000
    )

    test("counts and purge declare no delay queue", (driver, prefix) =>
      Effect.gen(function* () {
        yield* driver.publish([envelope("a"), envelope("b", { queue: "other", delayMillis: 65_536 })])
        assert.deepStrictEqual(yield* driver.counts(["default", "other"]), [
          { ready: 1, delayed: 0, claimed: 0 },
          { ready: 0, delayed: 1, claimed: 0 }
        ])
        assert.deepStrictEqual(yield* driver.purge("default", 10), [
          { id: "a", incarnation: "", generation: 0 }
        ])
        assert.deepStrictEqual(yield* queuesOf(prefix, "default"), [])
        assert.deepStrictEqual(yield* queuesOf(prefix, "other"), [16])
      }))

    test("counts and purge see what another process has delayed", (driver, prefix) =>
      Effect.gen(function* () {
        // a first look finds no delay queue
        assert.deepStrictEqual(yield* driver.counts(["default"]), [{ ready: 0, delayed: 0, claimed: 0 }])
        const another = yield* open(prefix)
        yield* another.publish([
          envelope("a", { delayMillis: 60_000 }),
          envelope("b", { delayMillis: 2 ** 20 }),
          envelope("c")
        ])
        assert.deepStrictEqual(yield* driver.counts(["default"]), [{ ready: 1, delayed: 2, claimed: 0 }])
        const purged = yield* driver.purge("default", 10)
        assert.sameMembers(
          purged.map(({ id }) => id),
          ["a", "b", "c"]
        )
        assert.deepStrictEqual(yield* another.counts(["default"]), [{ ready: 0, delayed: 0, claimed: 0 }])
      }))

    test("a message arrives although the process that delayed it has ended", (driver, prefix) =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.flatMap(open(prefix), (another) =>
            another.publish([envelope("a", { delayMillis: 500 }), envelope("b", { delayMillis: 64 })])
          )
        )
        const arrival = yield* subscribe(driver)
        assert.strictEqual((yield* arrival).delivery.id, "b")
        assert.strictEqual((yield* arrival).delivery.id, "a")
      }))

    test("a delay queue that was removed is declared again", (driver, prefix) =>
      Effect.gen(function* () {
        const names = new Names(prefix)
        const arrival = yield* subscribe(driver)
        yield* driver.publish([envelope("a", { delayMillis: 64 })])
        assert.strictEqual((yield* arrival).delivery.id, "a")
        yield* Effect.scoped(
          Effect.flatMap(openConnection(sharedUrl), (connection) =>
            Effect.flatMap(channelOf(connection), (channel) =>
              Effect.promise(() => channel.deleteQueue(names.delayQueue("default", 6)))
            )
          )
        )
        yield* driver.publish([envelope("b", { delayMillis: 64 })])
        assert.strictEqual((yield* arrival).delivery.id, "b")
      }))
  })
})

// #endregion
