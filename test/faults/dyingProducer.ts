/** A producer of the fault suites: it enqueues one task after the other under ids of its own, and dies where it is told to. */
import { Effect, type Scope } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { Job, type Payload } from "./job.ts"
import { type Die, type ProducerKillPlan, forProducer, unfused } from "./killPoints.ts"
import type { Emit } from "./workerEvents.ts"

/** What it enqueues, and when it dies. */
export interface Options extends ProducerKillPlan {
  readonly payloads: ReadonlyArray<Payload>
  /** Whether each step is done by itself. */
  readonly unfused?: boolean
}

/** The id of its task: the same, whoever enqueues it. */
export const idOf = ({ n }: Payload): string => `job ${n}`

/** Enqueues all, unless it dies. */
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
