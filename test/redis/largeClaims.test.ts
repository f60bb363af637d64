/** Claims of large messages: from several shards, repeated, and behind claims whose leases are over. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, type Scope, Stream } from "effect"
import type { Batch, BrokerDriver, Delivery, Envelope } from "../../src/BrokerDriver.ts"
import { eventually } from "../support/storeFixture.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { describeWithRedis } from "./server.ts"
import { temporaryDrivers } from "./temporary.ts"

const MIB = 1024 * 1024
const LONG = 60_000

const message = (id: string, mib: number): Envelope => ({
  id,
  task: "t",
  queue: "q",
  priority: 100,
  delayMillis: 0,
  body: "x".repeat(mib * MIB)
})

const idsOf = (claimed: ReadonlyArray<Delivery>) => claimed.map(({ id }) => id ?? "").sort()

const claim = (broker: BrokerDriver, claimId: string, max = 16, leaseMillis = LONG, isRetry = false) =>
  broker.claim({ queues: ["q"], max, leaseMillis, worker: "w", claimId, isRetry })

const test = (
  name: string,
  shards: number,
  body: (broker: BrokerDriver) => Effect.fn.Return<void, unknown, Scope.Scope>
): void =>
  it.live(name, () =>
    Effect.gen(function* () {
      const { broker } = yield* temporaryDrivers({ shards })
      return yield* body(broker)
    })
  )

await describeWithRedis("large messages in Redis", () => {
  describe("a claim", () => {
    test("that is repeated returns what it took from all shards", 3, function* (broker) {
      for (let round = 0; round < 3; round++) {
        yield* broker.publish(
          Arr.map([0.9, 0.9, 2.5, 0.9, 2.5] as const, (mib, n) => message(`${round}-${n}`, mib))
        )
        for (let n = 0; ; n++) {
          const first = yield* claim(broker, `${round}-${n}`)
          if (first.length === 0) break
          const again = yield* claim(broker, `${round}-${n}`, first.length, LONG, true)
          assert.deepStrictEqual(idsOf(again), idsOf(first))
          yield* broker.ack(again.map(({ handle }) => handle) as unknown as Batch<string>)
        }
      }
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [{ ready: 0, delayed: 0, claimed: 0 }])
    })

    test("that leaves messages in other shards wakes its worker again", 8, function* (broker) {
      const messages = Arr.map(Arr.range(1, 12), (n) => message(`m${n}`, 2.5))
      yield* broker.publish(messages)
      let found = 0
      yield* Stream.runForEach(broker.ready(["q"], 16), () =>
        Effect.map(claim(broker, `c${found}`), (claimed) => void (found += claimed.length))
      ).pipe(Effect.forkScoped)
      yield* eventually(Effect.sync(() => found === messages.length))
    })

    test("that leaves a message leaves the receipt of its last claim valid", 1, function* (broker) {
      yield* broker.publish([message("a", 2), message("b", 2)])
      const [a] = yield* claim(broker, "c1", 1, 500)
      const [b] = yield* claim(broker, "c2", 1, 500)
      yield* eventually(Effect.map(broker.counts(["q"]), ([counts]) => counts!.ready === 2))
      assert.deepStrictEqual(idsOf(yield* claim(broker, "c3")), ["a"])
      assert.deepStrictEqual(yield* broker.ack([a!.handle, b!.handle]), [false, true])
    })
  })
})
