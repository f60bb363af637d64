/**
 * A worker process. Its argument is the database.
 *
 * It works until its stdin ends, so it never outlives the process that started it.
 */
import { createHash } from "node:crypto"
import { createGzip } from "node:zlib"
import { NodeRuntime, NodeServices, NodeStream } from "@effect/platform-node"
import { TaskContext, Worker } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Effect, FileSystem, Layer, Logger, Stdio, Stream } from "effect"
import { concurrency, lease } from "./settings.ts"
import { Digest, DigestFile, FileUnreadable } from "./tasks.ts"
import * as WorkerEvents from "./workerEvents.ts"

const newline = "\n".charCodeAt(0)

/** Reads the file once: hashes each chunk, counts its line ends, and pipes it into gzip. */
const digest = Effect.fn("digest")(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const hash = createHash("sha256")
  let bytes = 0
  let lines = 0
  const gzipped = yield* fs.stream(path).pipe(
    Stream.tap((chunk) =>
      Effect.sync(() => {
        hash.update(chunk)
        bytes += chunk.length
        for (const byte of chunk) if (byte === newline) lines++
      })
    ),
    NodeStream.pipeThroughSimple(() => createGzip({ level: 9 })),
    Stream.runFold(
      () => 0,
      (size, chunk) => size + chunk.length
    )
  )
  return new Digest({ bytes, gzipped, lines, sha256: hash.digest("hex") })
})

const DigestFileLive = DigestFile.toLayer(({ path }) =>
  Effect.gen(function* () {
    const { taskId } = yield* TaskContext.TaskContext
    yield* WorkerEvents.report({ _tag: "RunStarted", taskId })
    return yield* digest(path)
  }).pipe(
    Effect.catchTag("PlatformError", ({ reason }) =>
      Effect.fail(new FileUnreadable({ path, reason: reason._tag }))
    ),
    // a failure of gzip is a bug, not an error that the task declares
    Effect.catchTag("UnknownError", Effect.die)
  )
)

const WorkerLive = Worker.layer([DigestFile], { concurrency, lease }).pipe(Layer.provide(DigestFileLive))

/** Works until stdin ends. The layer's scope then closes, which drains the worker. */
const work = Effect.gen(function* () {
  const worker = yield* Worker.Worker
  const { stdin } = yield* Stdio.Stdio
  yield* WorkerEvents.report({ _tag: "Ready", worker: worker.id })
  yield* Stream.runDrain(stdin)
  return worker
}).pipe(Effect.provide(WorkerLive))

Effect.gen(function* () {
  const { args } = yield* Stdio.Stdio
  const [filename = "tasks.db"] = yield* args
  const worker = yield* work.pipe(Effect.provide(SqliteStore.layer({ filename })))
  const { failed, succeeded } = yield* worker.stats
  yield* WorkerEvents.report({ _tag: "Drained", accepted: succeeded + failed })
}).pipe(
  Effect.provide(NodeServices.layer),
  // stdout is for events
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain
)
