/** What a handler can do with its run. */
import { Data, Effect, Schedule } from "effect"
import type { ReadError } from "../../StoreError.ts"
import { insideTransaction } from "../driver/driverCalls.ts"
import { CurrentRun, type RunControl } from "../task/CurrentRun.ts"
import { applyRenewal } from "./leaseRenewal.ts"
import type { AnyFiber } from "./observeFibers.ts"
import { outcomeOfValue, type Run } from "./Run.ts"
import { DecidedOutcome } from "./runOutcome.ts"
import { RunSlot } from "./RunSlot.ts"
import * as workerLog from "./workerLog.ts"
import type { WorkerState } from "./WorkerState.ts"

/** Something else holds the record of a task: an open transaction, or a renewal of the worker itself. */
class RecordLocked extends Data.Error<{}> {
  override get message(): string {
    return "something else holds the record of the task, such as an open transaction"
  }
}

/** Two seconds in all: a renewal takes milliseconds. */
const LOCKED_RETRY = Schedule.upTo(Schedule.exponential("20 millis"), { duration: "2 seconds" })

/** The run of a handler, as its fibers see it. */
export class HandlerRun implements RunControl {
  private readonly worker: WorkerState
  private readonly run: Run
  readonly slot: RunSlot
  readonly maxBytes: number
  /** The store was full, and this is logged. */
  private isRefused = false

  constructor(worker: WorkerState, run: Run) {
    this.worker = worker
    this.run = run
    this.slot = new RunSlot(worker.slots, worker.forks)
    run.slot = this.slot
    this.maxBytes = run.task.maxBytes
  }

  withoutSlot<A, E, R>(effect: Effect.Effect<A, E, R>, deadline?: bigint): Effect.Effect<A, E, R> {
    return this.slot.without(effect, deadline)
  }

  onFiberStart(parent: AnyFiber | undefined): void {
    this.slot.onFiberStart(parent?.getRef(CurrentRun) === this ? parent : undefined)
  }

  onFiberEnd(): void {
    this.slot.onFiberEnd()
  }

  private readonly logRefused = Effect.suspend(() => {
    if (this.isRefused) return Effect.void
    this.isRefused = true
    return workerLog.progressRefused
  })

  writeProgress(progress: string): Effect.Effect<void> {
    const { run, worker } = this
    return Effect.withFiber(({ context }) => {
      const { backend } = worker.settings
      if (backend.read.isUnbatched(context)) return Effect.fail(insideTransaction())
      const { id, token } = run.candidate.start
      return Effect.suspend(() => {
        const sentAt = worker.now()
        return Effect.flatMap(
          backend.renew.one({ id, token, leaseMillis: worker.leaseMillis, progress }),
          (answer) => {
            if (answer === "Unknown") return Effect.fail(new RecordLocked())
            const refused = answer === "ProgressRefused" ? this.logRefused : Effect.void
            return Effect.andThen(applyRenewal(worker, run, answer, sentAt), refused)
          }
        )
      }).pipe(Effect.retry({ schedule: LOCKED_RETRY, while: (error) => error instanceof RecordLocked }))
    }).pipe(
      Effect.catchCause((cause) =>
        workerLog.progressNotWritten(worker.settings.backend.outages.isOngoing, cause)
      ),
      Effect.annotateLogs({ ...run.annotations, worker: worker.id })
    )
  }

  complete(value: unknown): Effect.Effect<() => void, ReadError> {
    const { run, worker } = this
    const { complete } = worker.runStore
    if (complete === undefined) {
      return Effect.die(
        new Error(
          "SqlStore.transact needs the results in the database of the transaction: provide SqlStore or SqlBackend"
        )
      )
    }
    return Effect.gen(function* () {
      const outcome = yield* outcomeOfValue(run, value, worker.id)
      if (outcome._tag !== "Success") return yield* Effect.die(new DecidedOutcome({ outcome }))
      const settled = yield* complete(run.candidate, outcome, run.claimed)
      if (settled !== "Stored") {
        run.interrupt("Lost")
        return yield* Effect.interrupt
      }
      return () => {
        run.settling = true
        run.completedOutcome = outcome
      }
    })
  }
}
