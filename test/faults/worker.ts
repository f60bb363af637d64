/** A worker of the fault suites: emits events and dies at its kill point. */
import { TaskContext, Worker } from "chicory"
import { Effect, Layer, Logger, LogLevel } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { TryAgain, ShortRetention, Job, Refused } from "./job.ts"
import * as KillPoints from "./killPoints.ts"
import type { Emit } from "./workerEvents.ts"

/** The worker's options, and when it dies. */
export interface Options {
  readonly worker?: Worker.Options
  readonly killPlan?: KillPoints.KillPlan | undefined
}

const handler = (emit: Emit, reached: (point: KillPoints.WorkerPoint) => Effect.Effect<void>) =>
  Job.toLayer(({ rerunMillis, ends, millis, n, retries: wanted }) =>
    Effect.gen(function* () {
      const { fence, retries, taskId: id } = yield* TaskContext.TaskContext
      emit({ _tag: "Began", id, retries, fence })
      yield* Effect.andThen(
        reached("in the handler"),
        Effect.sleep(fence === 1 ? millis : (rerunMillis ?? millis))
      ).pipe(Effect.onInterrupt(() => Effect.sync(() => emit({ _tag: "Interrupted", id }))))
      if (retries < wanted) return yield* new TryAgain()
      if (ends === "Fails") return yield* new Refused({ n })
      if (ends === "Dies") return yield* Effect.die(new Error(`job ${n} dies`))
      return { n, square: n * n }
    })
  )

/** Emits the lines of the log as events. */
export const logLines = (emit: Emit): Layer.Layer<never> =>
  Logger.layer([
    Logger.make<unknown, void>(({ logLevel, message }) => {
      if (LogLevel.isGreaterThanOrEqualTo(logLevel, "Info"))
        emit({ _tag: "Logged", message: String(message) })
    })
  ])

/** The worker over these drivers. */
export const layer = (
  drivers: StoreLocations.Drivers,
  { killPlan, worker }: Options,
  emit: Emit,
  die: KillPoints.Die
): Layer.Layer<Worker.Worker> => {
  const services = KillPoints.forWorker(drivers, emit, killPlan && { ...killPlan, die })
  let begun = 0
  const reached = (point: KillPoints.WorkerPoint) =>
    Effect.suspend(() => (killPlan?.point === point && ++begun > killPlan.settled ? die(point) : Effect.void))
  return Worker.layer([Job, ShortRetention], { drainTimeout: 0, ...worker }).pipe(
    Layer.provide(
      Layer.merge(
        handler(emit, reached),
        ShortRetention.toLayer(() => Effect.void)
      )
    ),
    Layer.provide(Layer.effectContext(StoreLocations.services(services))),
    Layer.provide(logLines(emit))
  )
}
