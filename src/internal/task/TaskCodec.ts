/**
 * The codecs of a task, built once when the task is made: building a codec costs fifty times what using it costs.
 *
 * A schema without asynchronous parts returns an `Exit`. The eager operators keep it an `Exit`, so that no fiber has to
 * step through a value that is known. No codec throws or dies: the code of a schema is the user's, and a value for which
 * it throws is a value that does not decode or encode.
 */
import { Effect, Exit, Schema, SchemaIssue, SchemaParser } from "effect"
import { type Reason, reasonSchema } from "../../TaskFailed.ts"
import { formatError } from "../formatError.ts"
import { parse, stringify } from "../json.ts"

/** The exit of a run as it is stored. */
export type TaskExit<A, E> =
  | { readonly _tag: "Success"; readonly value: A }
  | { readonly _tag: "Failure"; readonly reason: Reason<E> }

type Coding<A, R> = (input: unknown) => Effect.Effect<A, Schema.SchemaError, R>

/** The codec of a task's exit and progress. */
export interface ResultCodec<out A, out E, out P, out RD = never, out RE = never> {
  readonly decodeExit: Coding<TaskExit<A, E>, RD>
  readonly encodeExit: Coding<string, RE>
  readonly decodeProgress: Coding<P, RD>
  readonly encodeProgress: Coding<string, RE>
}

/** The codec of a task's payload, between values and JSON that is not yet text. */
export interface PayloadCodec<out A, out RD = never, out RE = never> {
  /** Applies the defaults of the schema's constructor, then encodes. */
  readonly encode: Coding<{ readonly value: A; readonly json: unknown }, RE>
  readonly decode: Coding<A, RD>
}

const failed = (defect: unknown): Exit.Exit<never, Schema.SchemaError> =>
  Exit.fail(new Schema.SchemaError(new SchemaIssue.InvalidValue({ message: formatError(defect) })))

/**
 * Turns what a transformation, a check, a default or a getter throws into a `SchemaError`. A value that is nested without
 * end overflows the stack, and so is one of these.
 */
const guarded =
  <A, R>(coding: Coding<A, R>): Coding<A, R> =>
  (input) => {
    let coded: Effect.Effect<A, Schema.SchemaError, R>
    try {
      coded = coding(input)
    } catch (defect) {
      return failed(defect)
    }
    return Exit.isExit(coded) && Exit.isSuccess(coded) ? coded : Effect.catchDefect(coded, failed)
  }

/** Builds the codec of a payload. */
export const payload = <S extends Schema.Constraint>(
  schema: S
): PayloadCodec<S["Type"], S["DecodingServices"], S["EncodingServices"]> => {
  // class schemas encode instances only, so a plain object is constructed first
  const construct = SchemaParser.makeEffect(schema)
  const json = Schema.toCodecJson(schema)
  const encode = Schema.encodeUnknownEffect(json)
  return {
    encode: guarded((input) =>
      Effect.flatMapEager(constructed(construct(input)), (value) =>
        Effect.mapEager(encode(value), (encoded) => ({ value, json: encoded }))
      )
    ),
    decode: guarded(Schema.decodeUnknownEffect(json))
  }
}

const constructed = <T, R>(effect: Effect.Effect<T, SchemaIssue.Issue, R>) =>
  Effect.mapErrorEager(effect, (issue) => new Schema.SchemaError(issue))

/** Builds a codec between the values of a schema and JSON text. */
const textOf = <S extends Schema.Constraint>(schema: S) => {
  const json = Schema.toCodecJson(schema)
  const decode = Schema.decodeUnknownEffect(json)
  const encode = Schema.encodeUnknownEffect(json)
  return {
    decode: guarded((text) => Effect.flatMapEager(parse(text), (value) => decode(value))),
    encode: guarded((value) => Effect.flatMapEager(encode(value), stringify))
  }
}

/** Builds the codec of exits and progress. */
export const result = <
  A extends Schema.Constraint,
  E extends Schema.Constraint,
  P extends Schema.Constraint
>(schemas: {
  readonly success: A
  readonly error: E
  readonly progress: P
}): ResultCodec<
  A["Type"],
  E["Type"],
  P["Type"],
  A["DecodingServices"] | E["DecodingServices"] | P["DecodingServices"],
  A["EncodingServices"] | E["EncodingServices"] | P["EncodingServices"]
> => {
  const exit = textOf(
    Schema.Union([
      Schema.TaggedStruct("Success", { value: schemas.success }),
      Schema.TaggedStruct("Failure", { reason: reasonSchema(schemas.error) })
    ])
  )
  const construct = SchemaParser.makeEffect(schemas.success)
  const encodeSuccess = Schema.encodeUnknownEffect(Schema.toCodecJson(schemas.success))
  const constructProgress = SchemaParser.makeEffect(schemas.progress)
  const progress = textOf(schemas.progress)
  return {
    // the type of a struct is opaque while its schemas are type parameters
    decodeExit: exit.decode as Coding<
      TaskExit<A["Type"], E["Type"]>,
      A["DecodingServices"] | E["DecodingServices"]
    >,
    // a success, the common case, skips the union
    encodeExit: guarded((outcome) =>
      isSuccess(outcome)
        ? Effect.mapEager(
            Effect.flatMapEager(
              Effect.flatMapEager(constructed(construct(outcome.value)), (value) => encodeSuccess(value)),
              stringify
            ),
            (value) => `{"_tag":"Success","value":${value}}`
          )
        : exit.encode(outcome)
    ),
    decodeProgress: progress.decode,
    encodeProgress: guarded((value) => Effect.flatMap(constructed(constructProgress(value)), progress.encode))
  }
}

const isSuccess = (u: unknown): u is { readonly _tag: "Success"; readonly value: unknown } =>
  (u as TaskExit<unknown, unknown>)._tag === "Success"

/** The codec of handles without schemas: stored values as JSON. */
export const json = result({ success: Schema.Json, error: Schema.Json, progress: Schema.Json })

/** The codec of failures that no handler caused, for tasks that this process does not know. */
export const untyped = result({ success: Schema.Void, error: Schema.Never, progress: Schema.Never })
