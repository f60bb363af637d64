/**
 * Starts claimed messages: decodes them, asks the store which may run, and passes each on to its run or its rejection.
 */
import { Array as Arr, Cause, Effect, Exit } from "effect"
import type { ClaimedMessage } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import { isRetryable } from "../../StoreError.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import { formatError } from "../formatError.ts"
import {
  parkUnstartable,
  type Rejection,
  rejectMalformed,
  rejectOversized,
  rejectUnknown
} from "./rejectDelivery.ts"
import type { StartCandidate } from "./RunStore.ts"
import { applyStart, finishUnrun } from "./runTask.ts"
import { release, retryWhile } from "./settle.ts"
import { startRequest } from "./startRequest.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Messages that could not be started are released for this long. */
const RELEASE_MILLIS = 1000

/** Starts what one claim brought; `sentAt` is the monotonic time at which the claim was sent. */
export const startDeliveries = (
  worker: WorkerState,
  claimed: ReadonlyArray<ClaimedMessage>,
  sentAt: bigint
): void => {
  const candidates: Array<StartCandidate> = []
  for (const message of claimed) {
    const { delivery, run } = message
    const { consumed, queued } = worker.queueMetrics(delivery.queue)
    consumed.updateUnsafe(1, worker.context)
    queued.updateUnsafe(delivery.ageMillis / 1000, worker.context)
    const decoded = decodeDelivery(worker, message)
    if (typeof decoded === "function") finishUnrun(worker, delivery, decoded(worker, message))
    else if (run === undefined) candidates.push(decoded)
    else applyStart(worker, decoded, run.started, sentAt)
  }
  if (candidates.length > 0) worker.fork(start(worker, candidates))
}

/** Returns how to start a message, or how to reject it. */
export const decodeDelivery = (
  worker: WorkerState,
  { delivery, run }: ClaimedMessage
): StartCandidate | Rejection => {
  if (delivery.oversizedBytes !== undefined) return rejectOversized(delivery.oversizedBytes)
  const decoded = TaskMessage.decode(delivery.body)
  if (Exit.isFailure(decoded)) return rejectMalformed(formatError(Cause.squash(decoded.cause)))
  const message = decoded.value
  if (!matchesEnvelope(message, delivery)) return rejectMalformed("its envelope names another task")
  const task = worker.tasks.get(message.task)
  return task === undefined
    ? rejectUnknown(message)
    : { delivery, message, start: startRequest(worker, delivery, message, task.definition, run?.token) }
}

/** Whether a message agrees with its envelope, by which the store may have started it. */
const matchesEnvelope = (
  message: TaskMessage.TaskMessage,
  { generation, id, incarnation = "", task }: Delivery
): boolean =>
  id === undefined ||
  (id === message.id &&
    task === message.task &&
    (generation === undefined ||
      (generation === message.generation && incarnation === (message.incarnation ?? ""))))

/** Starts messages. A batch that the store refuses for good is tried again in halves, so that only the message at fault is parked. */
const start = (worker: WorkerState, candidates: ReadonlyArray<StartCandidate>): Effect.Effect<void> => {
  if (!Arr.isReadonlyArrayNonEmpty(candidates)) return Effect.void
  const sentAt = worker.now()
  return retryWhile(worker, worker.runStore.start(candidates), {
    while: (error) => isRetryable(error) && areClaimsHeld(worker, sentAt)
  }).pipe(
    Effect.matchCauseEffect({
      onSuccess: (started) => {
        candidates.forEach((candidate, i) => applyStart(worker, candidate, started[i]!, sentAt))
        return Effect.void
      },
      onFailure: (cause) => {
        const error = Cause.findError(cause)
        if (error._tag === "Success" && error.success._tag === "BackendError" && !error.success.retryable) {
          const half = candidates.length >> 1
          if (half > 0) {
            return Effect.andThen(
              start(worker, candidates.slice(0, half)),
              start(worker, candidates.slice(half))
            )
          }
          const { delivery } = candidates[0]
          finishUnrun(worker, delivery, parkUnstartable(worker, delivery, error.success))
          return Effect.void
        }
        for (const { delivery } of candidates) {
          finishUnrun(worker, delivery, release(worker, delivery, RELEASE_MILLIS))
        }
        return logNotStarted(worker, candidates, cause)
      }
    })
  )
}

/** Logs that messages could not be started: a line for each task in each queue. */
const logNotStarted = (
  worker: WorkerState,
  candidates: ReadonlyArray<StartCandidate>,
  cause: Cause.Cause<unknown>
): Effect.Effect<void> => {
  const { isOngoing } = worker.settings.backend.outages
  const groups = Map.groupBy(candidates, ({ delivery: { queue }, message: { task } }) =>
    JSON.stringify([queue, task])
  )
  return Effect.forEach(
    groups.values(),
    (group) => {
      const { delivery, message } = group[0]!
      const taskIds = group.map(({ start }) => start.id)
      return workerLog.notStarted(
        isOngoing,
        { taskName: message.task, queue: delivery.queue, taskIds },
        cause
      )
    },
    { discard: true }
  )
}

const areClaimsHeld = (worker: WorkerState, since: bigint): boolean =>
  !worker.drainExpired && worker.now() - since < BigInt(worker.leaseMillis) * 1_000_000n
