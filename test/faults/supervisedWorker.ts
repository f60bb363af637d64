/** A place in a crew: workers come and go there. */
import type { NodeServices } from "@effect/platform-node"
import { Effect, type Scope } from "effect"
import type { EventProcess } from "../support/processes.ts"
import type { WorkerLog } from "./audit.ts"
import type { KillPlan } from "./killPoints.ts"
import type { WorkerEvent } from "./workerEvents.ts"

/** Whoever ends the worker there has another one take its place. */
export interface SupervisedWorker {
  /** No goodbye. */
  readonly kill: Effect.Effect<void, unknown>
  /** As a deploy does. */
  readonly replace: Effect.Effect<void, unknown>
  /** Its successor is one that dies at a point, if it comes to it. */
  readonly replaceWith: (killPlan: KillPlan) => Effect.Effect<void, unknown>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Has another one take the place of one that has died. */
  readonly ensureRunning: Effect.Effect<void, unknown>
  /** What those told that were there since the last time, and whether they were stopped in the midst of it. */
  readonly takeLogs: () => ReadonlyArray<WorkerLog>
}

interface Incarnation {
  readonly process: EventProcess<WorkerEvent>
  halted: boolean
  ended: boolean
}

/** Begins with a worker there. */
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
