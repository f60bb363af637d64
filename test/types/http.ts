/** `WorkerHealth`: layers around layers of workers. */
import type { Task, Worker } from "chicory"
import { WorkerHealth } from "chicory/http"
import { Layer } from "effect"
import type { Mailer } from "./subjects.ts"
import { expectType, type Store } from "./support.ts"

declare const worker: Layer.Layer<Worker.Worker, never, Store | Task.Handler<"math.divide">>
declare const withMailer: Layer.Layer<Worker.Worker | Mailer, TypeError, Store>

// it keeps what the layer provides, fails with and needs
expectType(worker.pipe(WorkerHealth.layer({ port: 8080 }))).is<
  Layer.Layer<Worker.Worker, WorkerHealth.ListenError, Store | Task.Handler<"math.divide">>
>(true)
expectType(Layer.merge(worker, withMailer).pipe(WorkerHealth.layer({ port: 8080, host: "127.0.0.1" }))).is<
  Layer.Layer<
    Worker.Worker | Mailer,
    TypeError | WorkerHealth.ListenError,
    Store | Task.Handler<"math.divide">
  >
>(true)
expectType(withMailer.pipe(WorkerHealth.layerFile({ path: "/tmp/worker.health", every: "5 seconds" }))).is<
  Layer.Layer<Worker.Worker | Mailer, TypeError | WorkerHealth.FileError, Store>
>(true)

// @ts-expect-error a layer without a worker
Layer.empty.pipe(WorkerHealth.layer({ port: 8080 }))
// @ts-expect-error there is no default port
WorkerHealth.layer({ host: "127.0.0.1" })
