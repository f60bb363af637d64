/** A producer of the fault suites: enqueues tasks one by one under fixed ids and dies at its kill point. */
import { Effect, type Scope } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { Job, type Payload } from "./job.ts"
import { type Die, type ProducerKillPlan, forProducer, unfused } from "./killPoints.ts"
import type { Emit } from "./workerEvents.ts"

/** What the producer enqueues, and when it dies. */
export interface Options extends ProducerKillPlan {
  readonly payloads: ReadonlyArray<Payload>
  /** Whether fused operations are replaced by single steps. */
  readonly unfused?: boolean
}

/** The id of a payload's task, the same for every producer. */
export const idOf = ({ n }: Payload): string => `job ${n}`

/** Enqueues all payloads, unless it dies first. */
export const run = Effect.fnUntraced(function* (
  drivers: StoreLocations.Drivers,
  options: Options,
  emit: Emit,
  die: Die
): Effect.fn.Return<void, unknown, Scope.Scope> {
  const shaped = options.unfused === true ? unfused(drivers) : drivers
  const services = yield* StoreLocations.services(forProducer(shaped, { ...options, die }))
  for (const payload of options.payloads) {
    const handle = yield* Effect.provideContext(Job.delay(payload, { id: idOf(payload) }), services)
    emit({ _tag: "Accepted", id: handle.taskId, n: payload.n })
  }
})
