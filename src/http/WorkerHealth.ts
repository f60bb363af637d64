/**
 * Answers probes of the workers of a process, as Kubernetes sends them: over HTTP, or by a file for probes that run a
 * command.
 *
 * **Example** (A worker with probes on port 8080)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Task, Worker } from "chicory"
 * import { WorkerHealth } from "chicory/http"
 * import { SqliteStore } from "chicory/sqlite"
 * import { Effect, Layer } from "effect"
 *
 * const Greet = Task.make("greet")
 *
 * const WorkerLive = Worker.layer([Greet]).pipe(
 *   Layer.provide(Greet.toLayer(() => Effect.log("hello"))),
 *   Layer.provide(SqliteStore.layer({ filename: "tasks.db" })),
 *   WorkerHealth.layer({ port: 8080 })
 * )
 *
 * export const main = () => NodeRuntime.runMain(Layer.launch(WorkerLive))
 * ```
 *
 * **Details**
 *
 * *Live* says that a restart would not help; *ready* says that the process takes tasks. A store that is away, tasks that
 * take all slots, and a drain leave a worker live. `Worker.HealthCode` lists what makes it unready or not live, and after
 * what time. A probe costs no call to the store.
 *
 * In a pod:
 *
 * ```yaml
 * livenessProbe:
 *   httpGet: { path: /live, port: 8080 }
 *   periodSeconds: 10
 *   timeoutSeconds: 5
 * readinessProbe:
 *   httpGet: { path: /ready, port: 8080 }
 * ```
 *
 * A handler that blocks the event loop delays the answers too: `timeoutSeconds` and `failureThreshold` bound for how long
 * it may.
 *
 * A process that has an HTTP server can answer by itself: the `health` of the `Worker` service is an effect that never
 * fails.
 *
 * @since 0.1.0
 * @module
 */
import { type Duration, Effect, type Layer, Schema } from "effect"
import { formatError } from "../internal/formatError.ts"
import { positiveDuration, text, wholeNumber } from "../internal/options.ts"
import type { Worker } from "../Worker.ts"
import { collectWorkers } from "./collectWorkers.ts"
import { writeHealth } from "./healthFile.ts"
import { serveProbes } from "./probeServer.ts"

/**
 * Options of {@link layer}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** 0 to 65535. 0 takes a free one, which the log names. */
  readonly port: number
  /**
   * The address to listen on. Default: all interfaces, since the probes of Kubernetes come from the node and not from the
   * pod. Use `127.0.0.1` where they come from the same machine.
   */
  readonly host?: string | undefined
}

/**
 * Options of {@link layerFile}.
 *
 * @category options
 * @since 0.1.0
 */
export interface FileOptions {
  /** The file, in a directory that exists and that the process may write to. Each process needs a file of its own. */
  readonly path: string
  /** How often it is written. Default 10 seconds. */
  readonly every?: Duration.Input | undefined
}

const remedies: Readonly<Record<string, string>> = {
  EADDRINUSE:
    "another process uses the port. End that process, or give WorkerHealth.layer a port of its own for each process of a machine",
  EACCES: "the process may not use the port. Choose one from 1024 on",
  EADDRNOTAVAIL: "the machine has no such address. Leave out `host` to listen on all interfaces"
}

/**
 * Error of {@link layer}: the server could not listen on its port.
 *
 * @category errors
 * @since 0.1.0
 */
export class ListenError extends Schema.TaggedError<ListenError>("chicory/ListenError")("ListenError", {
  port: Schema.Int,
  /** `undefined`: all interfaces. */
  host: Schema.UndefinedOr(Schema.String),
  /** The code of the system, such as `EADDRINUSE`. */
  code: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    const where = this.host === undefined ? "" : ` of ${this.host}`
    return `Failed to listen on port ${this.port}${where} for probes: ${remedies[this.code] ?? formatError(this.cause)}`
  }
}

/**
 * Error of {@link layerFile}: the file could not be written.
 *
 * @category errors
 * @since 0.1.0
 */
export class FileError extends Schema.TaggedError<FileError>("chicory/FileError")("FileError", {
  path: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `Failed to write the health file ${this.path}: ${formatError(this.cause)}. Its directory has to exist, and the process needs the right to write to it`
  }
}

/**
 * Adds a server of probes to a layer of workers.
 *
 * **Details**
 *
 * The server answers `GET /live` and `GET /ready`, with status 200 or 503 and a body such as
 * `{"status":"fail","code":"BrokerAway"}`, of which `code` is a `Worker.HealthCode`. It says nothing else.
 *
 * It listens before the layer is built, with the code `Starting`, and until the workers have stopped: during the drain
 * `/live` answers 200, and `/ready` 503. With several workers in the layer the worst of them counts.
 *
 * **Gotchas**
 *
 * Only workers that are built as a part of the given layer count.
 *
 * @see {@link layerFile} for a process that is to open no port
 *
 * @category layers
 * @since 0.1.0
 */
export const layer =
  (options: Options) =>
  <Workers extends Layer.Layer<Worker, unknown, unknown>>(
    workers: Workers
  ): Layer.Layer<Layer.Success<Workers>, Layer.Error<Workers> | ListenError, Layer.Services<Workers>> =>
    collectWorkers(workers, (health) =>
      Effect.suspend(() => {
        const port = wholeNumber("WorkerHealth.layer: port", options.port, 0, 65_535)
        const host = options.host === undefined ? undefined : text("WorkerHealth.layer: host", options.host)
        return serveProbes(health, { port, host }).pipe(
          Effect.mapError((cause) => new ListenError({ port, host, code: cause.code ?? "", cause })),
          Effect.tap((address) =>
            Effect.logInfo(`Started to answer probes on port ${address.port} of ${host ?? "all interfaces"}`)
          )
        )
      })
    )

/**
 * Adds a file to a layer of workers, for probes that run a command.
 *
 * **Details**
 *
 * The file is written while the workers are live, and removed when they have stopped. So a file that is older than a few
 * times `every` says what a missing one does: the process is not live. It contains the health as JSON, such as
 * `{"live":true,"ready":false,"code":"Draining"}`.
 *
 * With the default of 10 seconds, for a file of at most a minute:
 *
 * ```yaml
 * livenessProbe:
 *   exec:
 *     command: [sh, -c, "find /tmp/worker.health -mmin -1 | grep -q ."]
 * readinessProbe:
 *   exec:
 *     command: [sh, -c, "find /tmp/worker.health -mmin -1 -exec grep -q '\"ready\":true' {} \\; -print | grep -q ."]
 * ```
 *
 * Where the directory is not of the container, such as one of a volume, a process that was killed leaves its file, which
 * counts until it is old.
 *
 * @see {@link layer} for probes over HTTP
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFile =
  (options: FileOptions) =>
  <Workers extends Layer.Layer<Worker, unknown, unknown>>(
    workers: Workers
  ): Layer.Layer<Layer.Success<Workers>, Layer.Error<Workers> | FileError, Layer.Services<Workers>> =>
    collectWorkers(workers, (health) =>
      Effect.suspend(() => {
        const path = text("WorkerHealth.layerFile: path", options.path, 4096)
        const every = positiveDuration("WorkerHealth.layerFile: every", options.every ?? "10 seconds")
        return Effect.mapError(writeHealth(health, path, every), (cause) => new FileError({ path, cause }))
      })
    )
