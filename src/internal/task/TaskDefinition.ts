/** The definition of a task: what a worker and a producer need of it, with its schemas as codecs. */
import { Context, type Duration, type Effect } from "effect"
import type { RetryPolicy } from "../../RetryPolicy.ts"
import type { PayloadCodec, ResultCodec } from "./TaskCodec.ts"

/** A handler with the context of its layer, as `task.toLayer` provides it and `Worker.layer` requires it. */
export interface Handler {
  readonly run: (payload: unknown) => Effect.Effect<unknown, unknown, unknown>
  readonly context: Context.Context<unknown>
}

/** A task with checked options and built codecs. */
export interface TaskDefinition {
  readonly name: string
  readonly queue: string
  readonly payload: PayloadCodec<unknown, unknown, unknown>
  readonly result: ResultCodec<unknown, unknown, unknown, unknown, unknown>
  readonly retry: RetryPolicy<unknown>
  readonly retryDefects: boolean
  /** Whether a final failure that the handler declares leaves no dead letter. */
  readonly discardsFailures: boolean
  readonly maxCrashes: number
  readonly delivery: "at-least-once" | "at-most-once"
  readonly timeout: Duration.Duration | undefined
  readonly priority: number | undefined
  readonly expiresMillis: number | undefined
  /** `undefined`: the backend's default. `Infinity`: for ever. */
  readonly retentionMillis: number | undefined
  readonly idempotencyKey: ((payload: unknown) => string) | undefined
}

/** A task with the handler that runs it. */
export interface HandledTask {
  readonly definition: TaskDefinition
  readonly handler: Handler
}

/** Returns how many milliseconds the records of a task stay in a backend; `undefined`: for ever. */
export const retentionOf = (
  definition: Pick<TaskDefinition, "retentionMillis"> | undefined,
  backend: { readonly retentionMillis: number }
): number | undefined => {
  const millis = definition?.retentionMillis ?? backend.retentionMillis
  return millis === Infinity ? undefined : millis
}

const definitions = new WeakMap<object, TaskDefinition>()

/** Registers the definition of a task. */
export const register = (task: object, definition: TaskDefinition): void =>
  void definitions.set(task, definition)

/** Returns the definition of a task; throws for a value that `Task.make` did not make. */
export const definitionOf = (task: object): TaskDefinition => {
  const definition = definitions.get(task)
  if (definition === undefined) throw new TypeError("not a task: make tasks with Task.make")
  return definition
}

/** Returns the context key of a task's handler. */
export const handlerKey = (name: string): Context.Service<Handler, Handler> =>
  Context.Service<Handler>(`chicory/Task/Handler/${name}`)
