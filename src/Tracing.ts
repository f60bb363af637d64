/**
 * Decides which spans reach the tracer of a program.
 *
 * **Details**
 *
 * A SQL statement has a span where it runs in the fiber of its caller: enqueues inside `sql.withTransaction`,
 * `SqlStore.transact`, `Broker.counts`, `Broker.purge`, `Worker.active`, and the functions of `DeadLetters`. Their spans are
 * children of the caller's. All other statements serve many callers at once, or none, and make spans only with
 * {@link internal}.
 *
 * @since 0.1.0
 * @module
 */
import type { Context } from "effect"
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
