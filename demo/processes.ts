/** The worker processes, as the producer sees them: it starts them, reads what they tell, and ends them. */
import { Deferred, Effect, Fiber, Path, Schema, Stream } from "effect"
import { Ndjson } from "effect/encoding"
import { ChildProcess } from "effect/process"
import { Entry } from "./workerEvents.ts"

/** The process ended before it was ready to work. */
export class NotStarted extends Schema.TaggedError<NotStarted>()("NotStarted", { pid: Schema.Int }) {
  override get message(): string {
    return `the worker process ${this.pid} ended before it was ready`
  }
}

/**
 * Starts a worker on the database, and waits until it is ready. When the scope closes the process is ended, whatever
 * state it is in.
 */
export const start = Effect.fn("start")(function* (database: string) {
  const path = yield* Path.Path
  const program = path.join(import.meta.dirname, "worker.ts")
  const { exitCode, kill, pid, stdin, stdout } = yield* ChildProcess.make(
    process.execPath,
    [...process.execArgv, program, database],
    { stderr: "inherit", forceKillAfter: "5 seconds" }
  )

  const journal: Array<Entry> = []
  const ready = yield* Deferred.make<string>()
  const reading = yield* stdout.pipe(
    Stream.pipeThroughChannel(Ndjson.decodeSchema(Entry)()),
    Stream.runForEach((entry) => {
      journal.push(entry)
      return entry._tag === "Ready" ? Deferred.succeed(ready, entry.worker) : Effect.void
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
    /** What it has told so far; grows. */
    journal,
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT"),
    /** No goodbye: it gives nothing back. Returns when the process is gone. */
    kill: kill({ killSignal: "SIGKILL" }),
    /** Lets it finish what it runs, and returns when the process is gone. */
    dismiss: Stream.run(Stream.empty, stdin).pipe(
      Effect.andThen(Fiber.join(reading)),
      Effect.andThen(exitCode)
    )
  }
})

/** A worker process that runs. */
export type WorkerProcess = Effect.Success<ReturnType<typeof start>>
