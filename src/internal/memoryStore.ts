/** Backend and broker of one process as one store, fused: the fused engine under `TestClock`. */
import { Effect } from "effect"
import type { Driver as BackendDriver } from "../BackendDriver.ts"
import type { Driver as BrokerDriver } from "../BrokerDriver.ts"
import { makeMemoryBackend } from "./memoryBackend.ts"
import { makeMemoryBroker } from "./memoryBroker.ts"

/** The two drivers of one store. Each operation of a memory driver is a single step, and so are two in a row. */
export const makeMemoryStore: Effect.Effect<{
  readonly backend: BackendDriver<never>
  readonly broker: BrokerDriver<never>
}> = Effect.gen(function* () {
  const backend = yield* makeMemoryBackend
  const broker = yield* makeMemoryBroker
  const store = {}
  return {
    broker: { ...broker, store },
    backend: {
      ...backend,
      fusion: {
        store,
        enqueue: Effect.forEach(({ message, record }) =>
          Effect.tap(
            Effect.map(backend.create([record]), ([created]) => created!),
            (created) => (created._tag === "Created" ? broker.publish([message]) : Effect.void)
          )
        ),
        settle: Effect.forEach(({ handle, settlement }) =>
          Effect.tap(
            Effect.map(backend.settle([settlement]), ([settled]) => settled!),
            (settled) => {
              const { outcome } = settlement
              if (settled === "Lost") return Effect.void
              return settled === "Cancelled" || outcome._tag === "Success" || outcome._tag === "Failure"
                ? broker.ack([handle])
                : broker.release([
                    { handle, afterMillis: outcome._tag === "Retry" ? outcome.afterMillis : 0 }
                  ])
            }
          )
        )
      }
    }
  }
})
