/** Tests of the harness: it finds a defect of a store and reports it in few lines. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { BackendDriver } from "../../src/BackendDriver.ts"
import type { BrokerDriver } from "../../src/BrokerDriver.ts"
import { makeMemoryBackend } from "../../src/memory/MemoryBackendDriver.ts"
import { makeMemoryBroker } from "../../src/memory/MemoryBrokerDriver.ts"
import { check } from "./check.ts"
import type { Store } from "./modelFixture.ts"

/** A pair of memory stores with changed operations. */
const withDefect = (
  changeBackend: (backend: BackendDriver<never>) => Partial<BackendDriver<never>>,
  changeBroker: (broker: BrokerDriver<never>) => Partial<BrokerDriver<never>> = () => ({})
): Effect.Effect<Store> =>
  Effect.map(Effect.all({ backend: makeMemoryBackend, broker: makeMemoryBroker }), ({ backend, broker }) => ({
    backend: { ...backend, ...changeBackend(backend) },
    broker: { ...broker, ...changeBroker(broker) }
  }))

/** The lines of the disagreement, without the seed. */
const disagreementOf = (make: Effect.Effect<Store>) =>
  Effect.map(
    Effect.flip(
      check({ make, live: false, unit: 1000, queues: ["x", "y"], sequences: 1000, commands: 80, seed: 1 })
    ),
    ({ message }) => message.split("\n").slice(1)
  )

describe("the model finds a planted defect and reports it in few lines", () => {
  it.effect("a settlement that ignores its token", () =>
    Effect.gen(function* () {
      const tokens = new Map<string, string>()
      const make = withDefect(({ settle, start }) => ({
        start: (starts) =>
          Effect.tap(start(starts), (started) =>
            Effect.sync(() => {
              for (const [n, { id, token }] of starts.entries()) {
                if (started[n]?._tag === "Run") tokens.set(id, token)
              }
            })
          ),
        settle: ([first]) => settle([{ ...first, token: tokens.get(first.id) ?? first.token }])
      }))
      const disagreement = yield* disagreementOf(make)
      assert.isAtMost(disagreement.length, 12, disagreement.join("\n"))
      assert.match(disagreement.at(-1) ?? "", /settle: the store says Stored, the model Lost/)
    })
  )
})
