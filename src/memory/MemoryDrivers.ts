/** Both memory drivers as one store, with fused operations. */
import { Effect } from "effect"
import type { ClaimedMessage, BackendDriver, StartDefaults } from "../BackendDriver.ts"
import type { Delivery, BrokerDriver } from "../BrokerDriver.ts"
import { redeliveryDelay } from "../internal/driver/redeliveryDelay.ts"
import { startFromDefaults } from "../internal/driver/startFromDefaults.ts"
import { makeBackend } from "./MemoryBackendDriver.ts"
import { makeBroker } from "./MemoryBrokerDriver.ts"
import { MemoryMessages } from "./MemoryMessages.ts"

/** Makes the two drivers of one store. Operations of the memory drivers run in one step, and so do two in a row. */
export const makeMemoryDrivers: Effect.Effect<{
  readonly backend: BackendDriver<never>
  readonly broker: BrokerDriver<never>
}> = Effect.sync(() => {
  const messages = new MemoryMessages()
  const backend = makeBackend((id) => messages.removeDelayed(id))
  const broker = makeBroker(messages)
  const store = {}

  /** Starts a claimed message by its envelope alone; the handle of the claim is the token of the run. */
  const start = (
    delivery: Delivery,
    worker: string,
    startDefaults: ReadonlyArray<StartDefaults>
  ): Effect.Effect<ClaimedMessage> => {
    const token = delivery.handle
    const request = startFromDefaults(startDefaults, delivery, { token, worker })
    if (request === undefined) return Effect.succeed({ delivery, run: undefined })
    return Effect.map(backend.start([request]), ([started]) => ({
      delivery,
      run: started!._tag === "NoRecord" ? undefined : { token, started: started! }
    }))
  }

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
        claim: ({ startDefaults, ...claim }) =>
          Effect.flatMap(
            broker.claim(claim),
            Effect.forEach((delivery) => start(delivery, claim.worker, startDefaults))
          ),
        settle: Effect.forEach(({ handle, settlement }) =>
          Effect.tap(
            Effect.map(backend.settle([settlement]), ([settled]) => settled!),
            (settled) => {
              if (settled === "Lost") return Effect.void
              const afterMillis = redeliveryDelay(settlement, settled)
              return afterMillis === undefined
                ? broker.ack([handle])
                : broker.release([{ handle, afterMillis }])
            }
          )
        )
      }
    }
  }
})
