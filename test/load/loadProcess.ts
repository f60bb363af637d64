/** Processes of load tests: each has a small heap and dies if it needs more. */
import type { NodeServices } from "@effect/platform-node"
import { Deferred, Effect, Exit, Fiber, type Scope, Stream } from "effect"
import { Ndjson } from "effect/encoding"
import { ChildProcess } from "effect/process"
import * as StoreLocations from "../support/storeLocations.ts"
import { type Figures, Report } from "./figures.ts"

/** A process of a load test. */
export interface LoadProcess {
  readonly pid: number
  /** Waits until a milestone is reached and returns its report. A process that ends before is a defect. */
  readonly reached: (milestone: string) => Effect.Effect<Report>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Waits until the process has ended and returns whether it ended by itself. */
  readonly ended: Effect.Effect<boolean, unknown>
}

/** Starts a program of this directory. It is ended with the scope. */
export const start = Effect.fnUntraced(function* (
  program: string,
  location: StoreLocations.StoreLocation,
  /** The size of the heap in MiB. */
  size: number,
  options: object
): Effect.fn.Return<LoadProcess, unknown, Scope.Scope | NodeServices.NodeServices> {
  const child = yield* ChildProcess.make(
    process.execPath,
    [
      `--max-old-space-size=${size}`,
      "--expose-gc",
      "--conditions=chicory-src",
      `${import.meta.dirname}/${program}`,
      StoreLocations.encode(location),
      JSON.stringify(options)
    ],
    { stderr: "inherit", forceKillAfter: "5 seconds" }
  )
  const milestones = new Map<string, Deferred.Deferred<Report>>()
  const milestoneOf = (name: string) => {
    let milestone = milestones.get(name)
    if (milestone === undefined) milestones.set(name, (milestone = Deferred.makeUnsafe<Report>()))
    return milestone
  }
  const reading = yield* child.stdout.pipe(
    Stream.pipeThroughChannel(Ndjson.decodeSchema(Report)()),
    Stream.runForEach((one) =>
      Effect.sync(() => Deferred.doneUnsafe(milestoneOf(one.milestone), Effect.succeed(one)))
    ),
    Effect.forkScoped
  )
  return {
    pid: child.pid,
    reached: (milestone) =>
      Effect.raceFirst(
        Deferred.await(milestoneOf(milestone)),
        Effect.andThen(
          Effect.orDie(Fiber.join(reading)),
          Effect.suspend(() => {
            const reached = milestoneOf(milestone)
            // its last report may have arrived with its end
            return Deferred.isDoneUnsafe(reached)
              ? Deferred.await(reached)
              : Effect.die(new Error(`The process ${program} has ended before it reached "${milestone}"`))
          })
        )
      ),
    signal: (signal) => Effect.sync(() => process.kill(child.pid, signal)),
    ended: Effect.tap(Effect.map(Effect.exit(child.exitCode), Exit.isSuccess), () => Fiber.join(reading))
  }
})

/** Prints a line of figures. */
export const print = (name: string, ...all: ReadonlyArray<Report | Figures>): Effect.Effect<void> =>
  Effect.sync(() => {
    const parts = all.map((one) => {
      const figures = "figures" in one && typeof one.figures === "object" ? one.figures : (one as Figures)
      return Object.entries(figures)
        .map(([key, value]) => `${key} ${value}`)
        .join(", ")
    })
    console.log(`${name}: ${parts.join(" | ")}`)
  })
