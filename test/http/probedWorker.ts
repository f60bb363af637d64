/**
 * A worker process with probes: `probedWorker.ts <file of the store> <port> <health file>`. Its one task runs until the file
 * `<health file>.done` exists.
 */
import { existsSync } from "node:fs"
import { NodeRuntime } from "@effect/platform-node"
import { Task, Worker } from "chicory"
import { WorkerHealth } from "chicory/http"
import { SqliteStore } from "chicory/sqlite"
import { Effect, Layer, References, Schedule, Schema } from "effect"

export const UntilDone = Task.make("untilDone")

export const ProbedEvent = Schema.TaggedStruct("Began", {})

const main = (filename: string, port: number, path: string) =>
  Worker.layer([UntilDone], { drainTimeout: "60 seconds" }).pipe(
    Layer.provide(
      UntilDone.toLayer(() => {
        process.stdout.write(`${JSON.stringify({ _tag: "Began" })}\n`)
        return Effect.asVoid(
          Effect.repeat(
            Effect.sync(() => existsSync(`${path}.done`)),
            { until: (isDone) => isDone, schedule: Schedule.spaced("20 millis") }
          )
        )
      })
    ),
    Layer.provide(SqliteStore.layer({ filename })),
    WorkerHealth.layer({ port }),
    WorkerHealth.layerFile({ path, every: "50 millis" }),
    // stdout is for events
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "Warn")),
    Layer.launch
  )

if (import.meta.main) NodeRuntime.runMain(main(process.argv[2]!, Number(process.argv[3]), process.argv[4]!))
