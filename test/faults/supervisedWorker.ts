/** A supervised worker: every incarnation that ends is replaced by the next. */
import type { NodeServices } from "@effect/platform-node"
import { Effect, type Scope } from "effect"
import type { EventProcess } from "../support/processes.ts"
import type { WorkerLog } from "./audit.ts"
import type { KillPlan } from "./killPoints.ts"
import type { WorkerEvent } from "./workerEvents.ts"

/** Operations on the current incarnation. Ending it starts the next. */
export interface SupervisedWorker {
  /** Kills it with SIGKILL. */
  readonly kill: Effect.Effect<void, unknown>
  /** Stops it gracefully, as a deploy does. */
  readonly replace: Effect.Effect<void, unknown>
  /** Replaces it by one that dies at a kill point. */
  readonly replaceWith: (killPlan: KillPlan) => Effect.Effect<void, unknown>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Replaces it if it has died. */
  readonly ensureRunning: Effect.Effect<void, unknown>
  /** Takes the events of all incarnations since the last call, and whether each was killed or frozen. */
  readonly takeLogs: () => ReadonlyArray<WorkerLog>
}

interface Incarnation {
  readonly process: EventProcess<WorkerEvent>
  halted: boolean
  ended: boolean
}

/** Starts the first incarnation. */
export const make = Effect.fnUntraced(function* (
  start: (
    killPlan?: KillPlan
  ) => Effect.Effect<EventProcess<WorkerEvent>, unknown, Scope.Scope | NodeServices.NodeServices>
): Effect.fn.Return<SupervisedWorker, unknown, Scope.Scope | NodeServices.NodeServices> {
  const context = yield* Effect.context<Scope.Scope | NodeServices.NodeServices>()
  const spawn = (killPlan?: KillPlan) =>
    Effect.gen(function* () {
      const process = yield* start(killPlan)
      const incarnation: Incarnation = { process, halted: killPlan !== undefined, ended: false }
      const watching = Effect.tap(Effect.ignore(process.ended), () =>
        Effect.sync(() => (incarnation.ended = true))
      )
      yield* Effect.forkScoped(watching)
      return incarnation
    }).pipe(Effect.provideContext(context))

  let current = yield* spawn()
  let incarnations = [current]
  const spawnNext = (killPlan?: KillPlan) =>
    Effect.map(spawn(killPlan), (incarnation) => {
      current = incarnation
      incarnations.push(incarnation)
    })
  const signal = (name: NodeJS.Signals) =>
    Effect.suspend(() => (current.ended ? Effect.void : Effect.ignoreCause(current.process.signal(name))))
  const kill = Effect.suspend(() => {
    current.halted = true
    return Effect.andThen(signal("SIGKILL"), Effect.ignore(current.process.ended))
  })
  const stop = signal("SIGTERM").pipe(
    Effect.andThen(
      Effect.timeoutOption(
        Effect.suspend(() => current.process.ended),
        "20 seconds"
      )
    ),
    Effect.ignore,
    Effect.andThen(Effect.suspend(() => (current.ended ? Effect.void : kill)))
  )
  return {
    kill: Effect.andThen(kill, spawnNext()),
    replace: Effect.andThen(stop, spawnNext()),
    replaceWith: (killPlan) => Effect.andThen(stop, spawnNext(killPlan)),
    freeze: Effect.suspend(() => {
      current.halted = true
      return signal("SIGSTOP")
    }),
    thaw: signal("SIGCONT"),
    ensureRunning: Effect.suspend(() => (current.ended ? spawnNext() : Effect.void)),
    takeLogs: () => {
      const takeLogs = incarnations.map(({ halted, process }) => ({ events: [...process.events], halted }))
      current.process.clear()
      incarnations = [current]
      return takeLogs
    }
  }
})
