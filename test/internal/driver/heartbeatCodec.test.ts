import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import * as HeartbeatText from "../../../src/internal/driver/heartbeatCodec.ts"

const worker = { id: "w", hostname: "h", pid: 1, queues: ["q"], tasks: [], concurrency: 1, running: 0 }

describe("heartbeatCodec", () => {
  it.effect("round-trips a heartbeat and skips undecodable ones with one warning", () =>
    Effect.gen(function* () {
      const info = yield* HeartbeatText.encode(worker)
      const warnings: Array<unknown> = []
      const found = yield* HeartbeatText.decodeAll([
        { info: "}{", startedAt: 1, seenAt: 2 },
        { info, startedAt: 1, seenAt: 2 },
        { info, startedAt: Number.NaN, seenAt: 2 },
        { info, startedAt: 1, seenAt: Infinity },
        { info: "{}", startedAt: 1, seenAt: 2 }
      ]).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void warnings.push(message))])))
      assert.deepStrictEqual(found, [{ ...worker, startedAt: 1, seenAt: 2 }])
      assert.lengthOf(warnings, 1)
    })
  )
})
