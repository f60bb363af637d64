/** Starts worker processes, reads the events that they report, and ends them. */
import { Deferred, Effect, Fiber, Path, Schema, Stream } from "effect"
import { Ndjson } from "effect/encoding"
import { ChildProcess } from "effect/process"
import { WorkerEvent } from "./workerEvents.ts"

/** The process ended before it was ready. */
export class NotStarted extends Schema.TaggedError<NotStarted>()("NotStarted", { pid: Schema.Int }) {
  override get message(): string {
    return `the worker process ${this.pid} ended before it was ready`
  }
}

/**
 * Starts a worker on the database, and waits until it is ready. The process is ended when the scope closes, in any
 * state.
 */
export const start = Effect.fn("start")(function* (database: string) {
  const path = yield* Path.Path
  const program = path.join(import.meta.dirname, "worker.ts")
  const { exitCode, kill, pid, stdin, stdout } = yield* ChildProcess.make(
    process.execPath,
    [...process.execArgv, program, database],
    { stderr: "inherit", forceKillAfter: "5 seconds" }
  )

  const events: Array<WorkerEvent> = []
  const ready = yield* Deferred.make<string>()
  const reading = yield* stdout.pipe(
    Stream.pipeThroughChannel(Ndjson.decodeSchema(WorkerEvent)()),
    Stream.runForEach((event) => {
      events.push(event)
      return event._tag === "Ready" ? Deferred.succeed(ready, event.worker) : Effect.void
    }),
    Effect.forkScoped
  )
  const ended = Effect.andThen(Fiber.join(reading), new NotStarted({ pid }))
  const worker = yield* Effect.raceFirst(Deferred.await(ready), ended)
  const signal = (name: "SIGSTOP" | "SIGCONT") => Effect.sync(() => process.kill(pid, name))

  return {
    pid,
    /** Its name in the records of the store. */
    worker,
    /** The events that it has reported so far; grows. */
    events,
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT"),
    /** Kills it with SIGKILL, so it puts nothing back. Returns when the process has ended. */
    kill: kill({ killSignal: "SIGKILL" }),
    /** Lets it finish its runs. Returns when the process has ended. */
    drain: Stream.run(Stream.empty, stdin).pipe(Effect.andThen(Fiber.join(reading)), Effect.andThen(exitCode))
  }
})

/** A running worker process. */
export type WorkerProcess = Effect.Success<ReturnType<typeof start>>
