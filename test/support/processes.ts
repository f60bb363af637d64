/** Worker processes for tests: started, told, stopped and killed. */
import type { NodeServices } from "@effect/platform-node"
import { AsyncResult, Broker, type Worker } from "chicory"
import { Deferred, Effect, Exit, Fiber, Option, Schedule, type Scope, Stream } from "effect"
import { Ndjson } from "effect/encoding"
import { ChildProcess } from "effect/process"
import * as Places from "./places.ts"
import { Told } from "./processTasks.ts"

/** Node on a program beside this module. */
export const program = (
  name: string,
  args: ReadonlyArray<string>,
  options?: ChildProcess.CommandOptions
): ChildProcess.Command =>
  ChildProcess.make(
    process.execPath,
    ["--conditions=chicory-src", `${import.meta.dirname}/${name}`, ...args],
    { stderr: "inherit", forceKillAfter: "5 seconds", ...options }
  )

/** A process of a test. */
export interface WorkerProcess {
  readonly pid: number
  /** What it has told so far. */
  readonly told: ReadonlyArray<Told>
  /** Waits until what it has told passes the check. */
  readonly until: (check: (told: ReadonlyArray<Told>) => boolean) => Effect.Effect<void>
  /** Waits until so many handlers have begun. */
  readonly began: (count?: number) => Effect.Effect<void>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** No goodbye. */
  readonly kill: Effect.Effect<void, unknown>
  /** Waits until the process has ended, and all that it told is known; tells whether it ended by itself. */
  readonly ended: Effect.Effect<boolean, unknown>
}

/** A worker process that is ready. It is ended with the scope. */
export const startWorker = Effect.fnUntraced(function* (
  place: Places.Place,
  options?: Worker.Options
): Effect.fn.Return<WorkerProcess, unknown, Scope.Scope | NodeServices.NodeServices> {
  const child = yield* program("processWorker.ts", [Places.encode(place), JSON.stringify(options ?? {})])
  const told: Array<Told> = []
  const waiting = new Set<{ readonly check: () => boolean; readonly done: Deferred.Deferred<void> }>()
  const reading = yield* child.stdout.pipe(
    Stream.pipeThroughChannel(Ndjson.decodeSchema(Told)()),
    Stream.runForEach((one) =>
      Effect.sync(() => {
        told.push(one)
        for (const waiter of waiting) if (waiter.check()) Deferred.doneUnsafe(waiter.done, Effect.void)
      })
    ),
    Effect.forkScoped
  )
  const silence = Effect.andThen(
    Effect.orDie(Fiber.join(reading)),
    Effect.die(new Error("The process has ended, and never told what was waited for"))
  )
  const until: WorkerProcess["until"] = (check) =>
    Effect.suspend(() => {
      if (check(told)) return Effect.void
      const waiter = { check: () => check(told), done: Deferred.makeUnsafe<void>() }
      waiting.add(waiter)
      return Effect.ensuring(
        Effect.raceFirst(Deferred.await(waiter.done), silence),
        Effect.sync(() => waiting.delete(waiter))
      )
    })
  yield* until((all) => all.some(({ _tag }) => _tag === "Ready"))
  return {
    pid: child.pid,
    told,
    until,
    began: (count = 1) => until((all) => began(all) >= count),
    signal: (signal) => Effect.sync(() => process.kill(child.pid, signal)),
    kill: child.kill({ killSignal: "SIGKILL" }),
    ended: Effect.tap(Effect.map(Effect.exit(child.exitCode), Exit.isSuccess), () => Fiber.join(reading))
  }
})

/** How many handlers have begun. */
export const began = (told: ReadonlyArray<Told>): number => told.filter(({ _tag }) => _tag === "Began").length

/** What is known of a task that exists. */
export const poll = <A, E, R, P>(handle: AsyncResult.AsyncResult<A, E, R, P>) =>
  Effect.map(AsyncResult.poll(handle), Option.getOrThrow)

/** Waits until no message is left: a message is acked after its result can be read. */
export const drained = Effect.repeat(Broker.counts(["default"]), {
  schedule: Schedule.spaced("50 millis"),
  until: ([counts]) => counts !== undefined && counts.ready + counts.delayed + counts.claimed === 0
})
