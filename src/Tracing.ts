/**
 * Decides which spans reach the tracer of a program, and how the spans of a producer and of its workers belong together.
 *
 * **Details**
 *
 * Spans are made only where a tracer is installed, such as the layer of Effect's `OtlpTracer`:
 *
 * - `send <queue>`, kind producer, around `delay`, `send` and `delayAll`. Its context travels in the message, as a W3C
 *   `traceparent`.
 * - `process <queue>`, kind consumer, around each run of a task: from the decoding of the payload to the encoding of the
 *   result. The spans of the handler are its children.
 *
 * Both have the attributes of OpenTelemetry's messaging conventions: `messaging.system`, `messaging.operation.name`,
 * `messaging.operation.type`, `messaging.destination.name`, `messaging.message.id` (the id of the task), or
 * `messaging.batch.message_count` for `delayAll`; also `chicory.task.name` and, for a run, `chicory.task.attempt`. A span
 * of what failed has the status of an error, and the tag of the error in `error.type`; that is `Died` for a defect.
 *
 * A SQL statement has a span where it runs in the fiber of its caller: enqueues inside `sql.withTransaction`,
 * `SqlStore.transact`, `Broker.counts`, `Broker.purge`, `Worker.active`, and the functions of `DeadLetters`. Their spans are
 * children of the caller's. All other statements serve many callers at once, or none, and make spans only with
 * {@link internal}.
 *
 * **Example** (Linking runs that waited for more than ten minutes)
 *
 * ```ts
 * import { Tracing } from "chicory"
 * import { Layer } from "effect"
 *
 * const TracingLive = Layer.succeed(Tracing.linkAfter, "10 minutes")
 * ```
 *
 * @since 0.1.0
 * @module
 */
import type { Context, Duration } from "effect"
import * as tracing from "./internal/tracing.ts"

/**
 * Whether the library's own work makes spans: polling, claims, renewals, settlements, heartbeats, sweeps, hints, batches of
 * calls, and migrations. Default `false`.
 *
 * **When to use**
 *
 * Use to look for what the library does with a store. With a SQL store every statement is a span then, also those of a
 * worker that is idle.
 *
 * **Details**
 *
 * It is read when the layers of stores and workers are built, so provide it to those layers.
 *
 * **Example** (Tracing every statement)
 *
 * ```ts
 * import { Tracing } from "chicory"
 * import { SqliteStore } from "chicory/sqlite"
 * import { Layer } from "effect"
 *
 * const StoreLive = SqliteStore.layer({ filename: "tasks.db" }).pipe(
 *   Layer.provide(Layer.succeed(Tracing.internal, true))
 * )
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const internal: Context.Reference<boolean> = tracing.internalSpans

/**
 * How long after its enqueue a run is still a child of the producer's span. A later run is the root of a trace of its own,
 * with a link to the producer's span, so that no trace grows for days. Default 1 hour.
 *
 * **Details**
 *
 * `0` links every run, `Duration.infinity` none. The time counts from the enqueue, so delayed tasks, late retries and replays
 * of dead letters are linked. It is measured with the clocks of the two processes.
 *
 * It is read when the layer of a worker is built; a duration that is negative is a defect then.
 *
 * @category references
 * @since 0.1.0
 */
export const linkAfter: Context.Reference<Duration.Input> = tracing.linkAfter
