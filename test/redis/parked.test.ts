/** Messages that are parked in Redis without a backend: they go after two weeks. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, it } from "@effect/vitest"
import { Context, Duration, Effect, Layer } from "effect"
import { Redis } from "effect/persistence/Redis"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { describeWithRedis, sharedUrl } from "./server.ts"
import { temporaryPrefix } from "./temporary.ts"

const TWO_WEEKS = Duration.toMillis(Duration.days(14))

await describeWithRedis("redis: parked messages", () => {
  it.live("a parked message stays for as long as a dead letter, whatever is parked later", () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryPrefix
      const context = yield* Layer.build(NodeRedis.layer({ url: sharedUrl }))
      const redis = Context.get(context, Redis)
      const { broker } = yield* Effect.provideContext(RedisStore.makeDrivers({ prefix }), context)
      const parked = `{${prefix}:0}:queue:q:parked`
      // messages that were parked at the beginning of time
      yield* redis.send("XADD", parked, "1-1", "reason", "Failed", "message", "")
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [{ ready: 0, delayed: 0, claimed: 0 }])
      yield* redis.send("XADD", parked, "2-1", "reason", "Failed", "message", "")

      yield* broker.publish([{ id: "a", task: "t", queue: "q", priority: 0, delayMillis: 0, body: "{}" }])
      const [claimed] = yield* broker.claim({ queues: ["q"], max: 1, leaseMillis: 60_000, worker: "w" })
      yield* broker.reject([{ handle: claimed!.handle, reason: "Failed" }])
      assert.strictEqual(yield* redis.send<number>("XLEN", parked), 1)
      const left = yield* redis.send<number>("PTTL", parked)
      assert.isAtMost(left, TWO_WEEKS)
      assert.isAbove(left, TWO_WEEKS - 60_000)
      assert.deepStrictEqual(withoutAges(yield* broker.counts(["q"])), [
        { ready: 0, delayed: 0, claimed: 0, parked: 1 }
      ])
    })
  )
})
