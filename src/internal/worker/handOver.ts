/** Takes messages that the store hands over after a claim, and puts back those that the worker cannot run. */
import { Effect } from "effect"
import type { ClaimedMessage, HandedOver } from "../../BackendDriver.ts"
import { isRetryable, type ReadError } from "../../StoreError.ts"
import { toEffect } from "../concurrency/Batcher.ts"
import { finishUnrun } from "./runTask.ts"
import { retryWhile } from "./settle.ts"
import { decodeDelivery, startDeliveries } from "./startDeliveries.ts"
import type { WorkerState } from "./WorkerState.ts"

/**
 * Starts a message that was handed over, if a slot is free. Returns `false` where the message is to come with the answer of
 * a claim on its way, where its lease is over, and once the worker has stopped claiming. A full worker puts it back.
 */
export const takeHandedOver = (
  worker: WorkerState,
  { leasedMillis, message }: HandedOver,
  isClaiming: boolean
): boolean => {
  // a process that was frozen receives it when others may run it already; the next claim tells
  if (worker.health.isStopping || leasedMillis >= worker.leaseMillis) return false
  const isFull = worker.slots.free <= 0
  if (isFull && isClaiming) return false
  if (isFull) {
    returnHandedOver(worker, message)
    return true
  }
  worker.slots.takeOver()
  startDeliveries(worker, [message], worker.now() - BigInt(Math.ceil(leasedMillis)) * 1_000_000n)
  return true
}

/** How often a call is repeated that puts messages back; what it cannot put back waits for the end of its lease. */
const RETRIES = 5

const retry = <A>(worker: WorkerState, call: Effect.Effect<A, ReadError>): Effect.Effect<A, ReadError> =>
  retryWhile(worker, call, { times: RETRIES, while: (error) => isRetryable(error) && !worker.drainExpired })

/** Puts a message back that was handed over, with nothing counted. */
const returnHandedOver = (worker: WorkerState, message: ClaimedMessage): void => {
  // what puts it back is no run, and is beyond the slots until that is done
  worker.slots.takeOver()
  const { delivery, run } = message
  const decoded = decodeDelivery(worker, message)
  if (typeof decoded === "function" || run?.started._tag !== "Run") {
    return startDeliveries(worker, [message], worker.now())
  }
  const released = retry(worker, toEffect(worker.runStore.saveOutcome(decoded, { _tag: "Release" })))
  finishUnrun(worker, delivery, Effect.orDie(Effect.asVoid(released)))
}

/** Ends the wait of the last claims for what is handed over, and puts back what was not taken. */
export const closeClaim = (worker: WorkerState): Effect.Effect<void> => {
  const close = worker.runStore.closeClaim
  return close === undefined
    ? Effect.void
    : Effect.matchCauseEffect(retry(worker, close(worker.id)), {
        onFailure: (cause) => worker.settings.broker.outages.failed(cause),
        onSuccess: (messages) =>
          Effect.sync(() => messages.forEach((message) => returnHandedOver(worker, message)))
      })
}
