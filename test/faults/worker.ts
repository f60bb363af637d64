/** A worker of the fault suites: it tells what it does, and dies where it is told to. */
import { TaskContext, Worker } from "chicory"
import { Effect, Layer, Logger, LogLevel } from "effect"
import * as Places from "../support/storeLocations.ts"
import { Again, Brief, Job, Refused } from "./job.ts"
import * as KillPoints from "./killPoints.ts"
import type { Tell } from "./workerEvents.ts"

/** How it works, and when it dies. */
export interface Options {
  readonly worker?: Worker.Options
  readonly fatal?: KillPoints.Fatal | undefined
}

const handler = (tell: Tell, reached: (point: KillPoints.WorkerPoint) => Effect.Effect<void>) =>
  Job.toLayer(({ againMillis, ends, millis, n, retries: wanted }) =>
    Effect.gen(function* () {
      const { fence, retries, taskId: id } = yield* TaskContext.TaskContext
      tell({ _tag: "Began", id, retries, fence })
      yield* Effect.andThen(
        reached("in the handler"),
        Effect.sleep(fence === 1 ? millis : (againMillis ?? millis))
      ).pipe(Effect.onInterrupt(() => Effect.sync(() => tell({ _tag: "Interrupted", id }))))
      if (retries < wanted) return yield* new Again()
      if (ends === "Fails") return yield* new Refused({ n })
      if (ends === "Dies") return yield* Effect.die(new Error(`job ${n} dies`))
      return { n, square: n * n }
    })
  )

/** What is logged as a warning or worse is told. */
export const warnings = (tell: Tell): Layer.Layer<never> =>
  Logger.layer([
    Logger.make<unknown, void>(({ logLevel, message }) => {
      if (LogLevel.isGreaterThanOrEqualTo(logLevel, "Warn"))
        tell({ _tag: "Warned", message: String(message) })
    })
  ])

/** The worker over these drivers, for as long as the layer lives. */
export const layer = (
  drivers: Places.Drivers,
  { fatal, worker }: Options,
  tell: Tell,
  die: KillPoints.Die
): Layer.Layer<Worker.Worker> => {
  const services = KillPoints.forWorker(drivers, tell, fatal && { ...fatal, die })
  let begun = 0
  const reached = (point: KillPoints.WorkerPoint) =>
    Effect.suspend(() => (fatal?.point === point && ++begun > fatal.settled ? die(point) : Effect.void))
  return Worker.layer([Job, Brief], { drainTimeout: 0, ...worker }).pipe(
    Layer.provide(
      Layer.merge(
        handler(tell, reached),
        Brief.toLayer(() => Effect.void)
      )
    ),
    Layer.provide(Layer.effectContext(Places.services(services))),
    Layer.provide(warnings(tell))
  )
}
