/** What a worker and a producer need of a task, with its schemas turned into codecs. */
import { Context, type Duration, type Effect } from "effect"
import type { RetryPolicy } from "../../RetryPolicy.ts"
import type { PayloadCodec, ResultCodec } from "./TaskCodec.ts"

/** A handler with the services it was given, as `task.toLayer` provides it and `Worker.layer` asks for it. */
export interface Handler {
  readonly run: (payload: unknown) => Effect.Effect<unknown, unknown, unknown>
  readonly context: Context.Context<unknown>
}

/** A task, its options checked and its codecs built. */
export interface TaskDefinition {
  readonly name: string
  readonly queue: string
  readonly payload: PayloadCodec<unknown, unknown, unknown>
  readonly result: ResultCodec<unknown, unknown, unknown, unknown, unknown>
  readonly retry: RetryPolicy<unknown>
  readonly retryDefects: boolean
  readonly maxCrashes: number
  readonly delivery: "at-least-once" | "at-most-once"
  readonly timeout: Duration.Duration | undefined
  readonly priority: number | undefined
  readonly expiresMillis: number | undefined
  /** `undefined`: what the backend says. `Infinity`: for ever. */
  readonly retentionMillis: number | undefined
  readonly idempotencyKey: ((payload: unknown) => string) | undefined
}

/** A task with the handler that runs it. */
export interface HandledTask {
  readonly definition: TaskDefinition
  readonly handler: Handler
}

/** How long the records of a task stay in that backend; `undefined`: for ever. */
export const retentionOf = (
  definition: Pick<TaskDefinition, "retentionMillis"> | undefined,
  backend: { readonly retentionMillis: number }
): number | undefined => {
  const millis = definition?.retentionMillis ?? backend.retentionMillis
  return millis === Infinity ? undefined : millis
}

const definitions = new WeakMap<object, TaskDefinition>()

/** Remembers what a task is made of. */
export const define = (task: object, definition: TaskDefinition): void =>
  void definitions.set(task, definition)

/** What a task is made of; `Task.make` is the only maker of tasks. */
export const definitionOf = (task: object): TaskDefinition => {
  const definition = definitions.get(task)
  if (definition === undefined) throw new TypeError("this is no task: tasks are made with Task.make")
  return definition
}

/** The key under which a handler is found. */
export const handlerKey = (name: string): Context.Service<Handler, Handler> =>
  Context.Service<Handler>(`chicory/Task/Handler/${name}`)
