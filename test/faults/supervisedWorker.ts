/** A place in a crew: workers come and go there. */
import type { NodeServices } from "@effect/platform-node"
import { Effect, type Scope } from "effect"
import type { Telling } from "../support/processes.ts"
import type { Told } from "./audit.ts"
import type { Fatal } from "./killPoints.ts"
import type { Entry } from "./workerEvents.ts"

/** Whoever ends the worker there has another one take its place. */
export interface Position {
  /** No goodbye. */
  readonly kill: Effect.Effect<void, unknown>
  /** As a deploy does. */
  readonly replace: Effect.Effect<void, unknown>
  /** Its successor is one that dies at a point, if it comes to it. */
  readonly doom: (fatal: Fatal) => Effect.Effect<void, unknown>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Has another one take the place of one that has died. */
  readonly mend: Effect.Effect<void, unknown>
  /** What those told that were there since the last time, and whether they were stopped in the midst of it. */
  readonly report: () => ReadonlyArray<Told>
}

interface Member {
  readonly process: Telling<Entry>
  halted: boolean
  ended: boolean
}

/** Begins with a worker there. */
export const make = Effect.fnUntraced(function* (
  start: (fatal?: Fatal) => Effect.Effect<Telling<Entry>, unknown, Scope.Scope | NodeServices.NodeServices>
): Effect.fn.Return<Position, unknown, Scope.Scope | NodeServices.NodeServices> {
  const context = yield* Effect.context<Scope.Scope | NodeServices.NodeServices>()
  const begin = (fatal?: Fatal) =>
    Effect.gen(function* () {
      const process = yield* start(fatal)
      const member: Member = { process, halted: fatal !== undefined, ended: false }
      const noting = Effect.tap(Effect.ignore(process.ended), () => Effect.sync(() => (member.ended = true)))
      yield* Effect.forkScoped(noting)
      return member
    }).pipe(Effect.provideContext(context))

  let current = yield* begin()
  let members = [current]
  const fill = (fatal?: Fatal) =>
    Effect.map(begin(fatal), (member) => {
      current = member
      members.push(member)
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
    kill: Effect.andThen(kill, fill()),
    replace: Effect.andThen(stop, fill()),
    doom: (fatal) => Effect.andThen(stop, fill(fatal)),
    freeze: Effect.suspend(() => {
      current.halted = true
      return signal("SIGSTOP")
    }),
    thaw: signal("SIGCONT"),
    mend: Effect.suspend(() => (current.ended ? fill() : Effect.void)),
    report: () => {
      const report = members.map(({ halted, process }) => ({ entries: [...process.told], halted }))
      current.process.clear()
      members = [current]
      return report
    }
  }
})
