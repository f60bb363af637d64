/** Who sweeps where several processes do: one of them, until it is gone. */
import { assert, it } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import { Redis } from "effect/persistence/Redis"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { record } from "../../src/testing/suites/backend/fixture.ts"
import { eventually } from "../support/storeFixture.ts"
import { describeWithRedis } from "./server.ts"
import { temporary } from "./temporary.ts"

await describeWithRedis("a sweep on Redis", () => {
  it.live("is left to one process, and another one takes over from it", () =>
    Effect.gen(function* () {
      const { prefix, redis } = yield* temporary
      const open = Effect.map(
        Effect.provideContext(RedisStore.makeDrivers({ prefix }), redis),
        ({ backend }) => backend
      )
      const [first, second] = yield* Effect.all([open, open])
      yield* first.create(Arr.map(Arr.range(1, 4), (n) => record(`${n}`, { expiresMillis: 1 })))
      yield* eventually(Effect.map(first.sweep(1), ({ handled }) => handled === 1))
      assert.strictEqual((yield* second.sweep(1)).handled, 0)
      assert.strictEqual((yield* first.sweep(1)).handled, 1)
      // as if the first process had not swept for as long as its mark is kept
      const { send } = yield* Effect.provideContext(Redis, redis)
      const mark = `{${prefix}:0}:sweeper`
      assert.isAbove(yield* send<number>("PTTL", mark), 0)
      yield* send("PEXPIRE", mark, "1")
      yield* eventually(Effect.map(second.sweep(1), ({ handled }) => handled === 1))
      assert.strictEqual((yield* first.sweep(1)).handled, 0)
    })
  )
})
