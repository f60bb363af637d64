/** A worker process of the fault suites: `workerProcess.ts <location> <options as JSON>`. Runs until a signal. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { halting, unfused } from "./killPoints.ts"
import { sample } from "./sampling.ts"
import * as SkewedClock from "./skewedClock.ts"
import * as Worker from "./worker.ts"
import { emit } from "./workerEvents.ts"

/** The worker's options, and when it dies. */
export interface Options extends Worker.Options {
  /** Whether fused operations are replaced by single steps. */
  readonly unfused?: boolean
  /** By how much its clock is ahead of the machine's. */
  readonly clockAheadMillis?: number
  /** Interval of resource samples. Default: none. */
  readonly sampleMillis?: number
}

const location = StoreLocations.decode(process.argv[2])
const options = JSON.parse(process.argv[3] ?? "{}") as Options

/** Emits resource samples. */
const sampling = (millis: number) =>
  Effect.map(sample, (sample) => emit({ _tag: "Sampled", ...sample })).pipe(
    Effect.delay(millis),
    Effect.forever,
    Effect.forkScoped
  )

Layer.effectDiscard(
  Effect.andThen(
    Effect.sync(() => emit({ _tag: "Ready" })),
    options.sampleMillis === undefined ? Effect.void : sampling(options.sampleMillis)
  )
).pipe(
  Layer.provideMerge(
    Layer.unwrap(
      Effect.map(StoreLocations.drivers(location), (drivers) =>
        Worker.layer(
          options.unfused === true ? unfused(drivers) : drivers,
          options,
          emit,
          halting(emit, options.killPlan?.stop)
        )
      )
    )
  ),
  // stdout is for events alone
  Layer.provide(Worker.logLines(emit)),
  Layer.launch,
  SkewedClock.provide(options.clockAheadMillis ?? 0),
  NodeRuntime.runMain
)
