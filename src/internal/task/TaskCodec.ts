/**
 * The codecs of a task, built once when the task is made: building a codec costs fifty times what using it costs.
 *
 * A schema without asynchronous parts returns an `Exit`. The eager operators keep it an `Exit`, so that no fiber has to
 * step through a value that is known. No codec throws or dies: the code of a schema is the user's, and a value for which
 * it throws is a value that does not decode or encode.
 */
import { Effect, Exit, Schema, SchemaIssue, SchemaParser } from "effect"
import { type Reason, reasonSchema } from "../../TaskFailed.ts"
import { nameOf } from "../errorText.ts"
import { parse, stringify } from "../json.ts"
import { redactIssues } from "../redactIssue.ts"

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

/** Fails with what the code of a schema threw as the `cause`: its message may quote the value. */
const failed = (cause: unknown): Exit.Exit<never, Schema.SchemaError> => {
  const message = `the code of the schema threw ${nameOf(cause)}`
  return Exit.fail(
    Object.assign(new Schema.SchemaError(new SchemaIssue.InvalidValue({ message })), { cause })
  )
}

/** Returns what the schema expects, and where, without values; and what its code threw, if it did. */
export const issueOf = (error: unknown): { readonly issue: string; readonly cause?: unknown } => {
  // services of a schema may fail with anything
  if (!Schema.isSchemaError(error))
    return { issue: `the code of the schema failed with ${nameOf(error)}`, cause: error }
  return error.cause === undefined ? { issue: error.message } : { issue: error.message, cause: error.cause }
}

/**
 * Turns what a transformation, a check, a default or a getter throws into a `SchemaError`. A value that is nested without
 * end overflows the stack, and so is one of these. No `SchemaError` has a value.
 */
const guarded = <A, R>(schema: Schema.Constraint, coding: Coding<A, R>): Coding<A, R> => {
  const redacted = redactIssues(schema.ast)
  return (input) => {
    let coded: Effect.Effect<A, Schema.SchemaError, R>
    try {
      coded = coding(input)
    } catch (defect) {
      return failed(defect)
    }
    return Exit.isExit(coded) && Exit.isSuccess(coded)
      ? coded
      : Effect.catchDefect(Effect.mapErrorEager(coded, redacted), failed)
  }
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
    encode: guarded(json, (input) =>
      Effect.flatMapEager(constructed(construct(input)), (value) =>
        Effect.mapEager(encode(value), (encoded) => ({ value, json: encoded }))
      )
    ),
    decode: guarded(json, Schema.decodeUnknownEffect(json))
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
    decode: guarded(json, (text) => Effect.flatMapEager(parse(text), (value) => decode(value))),
    encode: guarded(json, (value) => Effect.flatMapEager(encode(value), stringify))
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
  const exitSchema = Schema.Union([
    Schema.TaggedStruct("Success", { value: schemas.success }),
    Schema.TaggedStruct("Failure", { reason: reasonSchema(schemas.error) })
  ])
  const exit = textOf(exitSchema)
  const construct = SchemaParser.makeEffect(schemas.success)
  const encodeValue = Schema.encodeUnknownEffect(Schema.toCodecJson(schemas.success))
  // a success, the common case, skips the union
  const encodeSuccess = guarded(exitSchema, (success) =>
    Effect.mapEager(
      Effect.flatMapEager(
        Effect.flatMapEager(constructed(construct(success)), (value) => encodeValue(value)),
        stringify
      ),
      (value) => `{"_tag":"Success","value":${value}}`
    )
  )
  const makeProgress = SchemaParser.makeEffect(schemas.progress)
  const constructProgress = guarded(schemas.progress, (value) => constructed(makeProgress(value)))
  const progress = textOf(schemas.progress)
  return {
    // the type of a struct is opaque while its schemas are type parameters
    decodeExit: exit.decode as Coding<
      TaskExit<A["Type"], E["Type"]>,
      A["DecodingServices"] | E["DecodingServices"]
    >,
    encodeExit: (outcome) => (isSuccess(outcome) ? encodeSuccess(outcome.value) : exit.encode(outcome)),
    decodeProgress: progress.decode,
    encodeProgress: (value) => Effect.flatMap(constructProgress(value), progress.encode)
  }
}

const isSuccess = (u: unknown): u is { readonly _tag: "Success"; readonly value: unknown } =>
  (u as TaskExit<unknown, unknown>)._tag === "Success"

/** The codec of handles without schemas: stored values as JSON. */
export const json = result({ success: Schema.Json, error: Schema.Json, progress: Schema.Json })

/** The codec of failures that no handler caused, for tasks that this process does not know. */
export const untyped = result({ success: Schema.Void, error: Schema.Never, progress: Schema.Never })
