import { assert, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import * as RefusalLog from "../../src/redis/RefusalLog.ts"

it.effect("a full server is logged once, until all shards accept again", () =>
  Effect.gen(function* () {
    let warnings = 0
    const logger = Logger.make(({ logLevel }) => void (warnings += logLevel === "Warn" ? 1 : 0))
    const log = RefusalLog.make()
    const refuse = (shard: number) => Effect.provide(log.onRefused(shard), Logger.layer([logger]))
    yield* refuse(0)
    yield* refuse(1)
    log.onAccepted(0)
    yield* refuse(0)
    log.onAccepted(0)
    yield* refuse(1)
    assert.strictEqual(warnings, 1)
    log.onAccepted(1)
    yield* refuse(1)
    assert.strictEqual(warnings, 2)
  })
)
