/** Worker processes for tests: started, observed, stopped and killed. */
import type { NodeServices } from "@effect/platform-node"
import { AsyncResult, Broker, type Worker } from "chicory"
import { Effect, Exit, Fiber, Option, Schedule, type Schema, type Scope, Stream } from "effect"
import { Ndjson } from "effect/encoding"
import { ChildProcess } from "effect/process"
import * as EventLog from "./eventLog.ts"
import { ProcessEvent } from "./processTasks.ts"
import * as StoreLocations from "./storeLocations.ts"

/** A Node process of a program, whose path is relative to this module. */
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

/** A process that emits events. */
export interface EventProcess<T> {
  readonly pid: number
  /** The events so far. */
  readonly events: ReadonlyArray<T>
  /** Waits until the events pass the check. */
  readonly until: (check: (events: ReadonlyArray<T>) => boolean) => Effect.Effect<void>
  /** Removes the events so far. */
  readonly clear: () => void
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Kills it with SIGKILL. */
  readonly kill: Effect.Effect<void, unknown>
  /** Waits until the process has ended and its events are read. Returns whether it ended by itself. */
  readonly ended: Effect.Effect<boolean, unknown>
}

/** Starts a process that writes events as lines of JSON. It is ended with the scope. */
export const start = Effect.fnUntraced(function* <T>(
  command: ChildProcess.Command,
  schema: Schema.Codec<T, unknown>
): Effect.fn.Return<EventProcess<T>, unknown, Scope.Scope | NodeServices.NodeServices> {
  const child = yield* command
  const eventLog = EventLog.make<T>()
  const reading = yield* child.stdout.pipe(
    Stream.pipeThroughChannel(Ndjson.decodeSchema(schema)()),
    Stream.runForEach((event) => Effect.sync(() => eventLog.append(event))),
    Effect.forkScoped
  )
  const endedEarly = Effect.andThen(
    Effect.orDie(Fiber.join(reading)),
    Effect.die(new Error("the process has ended without the awaited events"))
  )
  return {
    pid: child.pid,
    events: eventLog.events,
    clear: eventLog.clear,
    until: (check) => Effect.raceFirst(eventLog.until(check), endedEarly),
    signal: (signal) => Effect.sync(() => process.kill(child.pid, signal)),
    kill: child.kill({ killSignal: "SIGKILL" }),
    ended: Effect.tap(Effect.map(Effect.exit(child.exitCode), Exit.isSuccess), () => Fiber.join(reading))
  }
})

/** A worker process. */
export interface WorkerProcess extends EventProcess<ProcessEvent> {
  /** Waits until that many handlers have begun. */
  readonly untilBegan: (count?: number) => Effect.Effect<void>
}

/** Starts a worker process and waits until it is ready. */
export const startWorker = Effect.fnUntraced(function* (
  location: StoreLocations.StoreLocation,
  options?: Worker.Options,
  command?: ChildProcess.CommandOptions
): Effect.fn.Return<WorkerProcess, unknown, Scope.Scope | NodeServices.NodeServices> {
  const args = [StoreLocations.encode(location), JSON.stringify(options ?? {})]
  const worker = yield* start(program("processWorker.ts", args, command), ProcessEvent)
  yield* worker.until((events) => events.some(({ _tag }) => _tag === "Ready"))
  return { ...worker, untilBegan: (count = 1) => worker.until((events) => beganCount(events) >= count) }
})

/** Counts the handlers that have begun. */
export const beganCount = (events: ReadonlyArray<ProcessEvent>): number =>
  events.filter(({ _tag }) => _tag === "Began").length

/** Polls a task that exists. */
export const poll = <A, E, R, P>(handle: AsyncResult.AsyncResult<A, E, R, P>) =>
  Effect.map(AsyncResult.poll(handle), Option.getOrThrow)

/** Waits until no message is left: a message is acked after its result can be read. */
export const drained = Effect.repeat(Broker.counts(["default"]), {
  schedule: Schedule.spaced("50 millis"),
  until: ([counts]) => counts !== undefined && counts.ready + counts.delayed + counts.claimed === 0
})
