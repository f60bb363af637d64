/** The handle on the result of a task, and its codec. `AsyncResult` exports what users need of it. */
import { Formatter, Inspectable, Pipeable, Predicate, Schema } from "effect"
import { text } from "../options.ts"
import * as TaskCodec from "../task/TaskCodec.ts"

/**
 * Runtime type identifier of handles.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~chicory/AsyncResult"

/**
 * Type-level identifier of handles.
 *
 * @category type IDs
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A handle on the result of a task: its id, with the codec of its result.
 *
 * **Details**
 *
 * `A`, `E` and `P` are the task's success, error and progress; `R` are the services that decoding needs. A log, an
 * inspector and `JSON.stringify` show the id alone.
 *
 * @see `AsyncResult.make` to make one from an id
 *
 * @category models
 * @since 0.1.0
 */
export interface AsyncResult<out A, out E = never, out R = never, out P = unknown>
  extends Pipeable.Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: {
    readonly _A: () => A
    readonly _E: () => E
    readonly _R: () => R
    readonly _P: () => P
  }
  readonly taskId: string
}

/**
 * Any handle.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = AsyncResult<unknown, unknown, unknown>

/**
 * The success of a handle's task.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Success<T> = T extends AsyncResult<infer A, infer _E, infer _R> ? A : never

/**
 * The error of a handle's task.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Error<T> = T extends AsyncResult<infer _A, infer E, infer _R> ? E : never

/**
 * The services that decoding a handle's result needs.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Services<T> = T extends AsyncResult<infer _A, infer _E, infer R> ? R : never

const absurd = (): never => {
  throw new TypeError("the type parameters of an AsyncResult have no values")
}
const variance = { _A: absurd, _E: absurd, _R: absurd, _P: absurd }

class Handle<A, E, R, P> extends Pipeable.Class implements AsyncResult<A, E, R, P> {
  readonly [TypeId]: AsyncResult<A, E, R, P>[TypeId] = variance
  readonly taskId: string
  readonly codec: TaskCodec.ResultCodec<A, E, P, R, unknown>
  constructor(taskId: string, codec: TaskCodec.ResultCodec<A, E, P, R, unknown>) {
    super()
    this.taskId = taskId
    this.codec = codec
  }
  // shows the id without the codec, which is large
  toJSON(): unknown {
    return { _id: "chicory/AsyncResult", taskId: this.taskId }
  }
  override toString(): string {
    return Formatter.format(this.toJSON())
  }
  [Inspectable.NodeInspectSymbol](): unknown {
    return this.toJSON()
  }
}

/** Returns the codec of a handle. */
export const codecOf = <A, E, R, P>(
  self: AsyncResult<A, E, R, P>
): TaskCodec.ResultCodec<A, E, P, R, unknown> => (self as Handle<A, E, R, P>).codec

/** Makes a handle over a codec. */
export const fromCodec = <A, E, R, P>(
  taskId: string,
  codec: TaskCodec.ResultCodec<A, E, P, R, unknown>
): AsyncResult<A, E, R, P> => new Handle(text("AsyncResult: taskId", taskId), codec)

/**
 * Returns whether a value is a handle.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAsyncResult = (u: unknown): u is Any => Predicate.hasProperty(u, TypeId)

/** The schemas of a handle. */
export interface HandleSchemas {
  readonly success: Schema.Constraint
  readonly error?: Schema.Constraint | undefined
  readonly progress?: Schema.Constraint | undefined
}

/** The last codec for each success schema, because building one costs fifty times what using it does. */
const codecCache = new WeakMap<
  Schema.Constraint,
  {
    readonly schemas: HandleSchemas
    readonly codec: TaskCodec.ResultCodec<unknown, unknown, unknown, unknown, unknown>
  }
>()

/** Returns the codec of a handle over schemas. */
export const codecFor = (
  schemas: HandleSchemas
): TaskCodec.ResultCodec<unknown, unknown, unknown, unknown, unknown> => {
  const cached = codecCache.get(schemas.success)
  if (
    cached !== undefined &&
    cached.schemas.error === schemas.error &&
    cached.schemas.progress === schemas.progress
  ) {
    return cached.codec
  }
  const codec = TaskCodec.result({
    success: schemas.success,
    error: schemas.error ?? Schema.Never,
    progress: schemas.progress ?? Schema.Never
  })
  codecCache.set(schemas.success, { schemas, codec })
  return codec
}
