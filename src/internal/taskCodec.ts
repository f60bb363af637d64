/**
 * The codecs of a task, built once when the task is made: building one costs fifty times what using it does.
 */
import { Effect, Schema, type SchemaIssue, SchemaParser } from "effect"
import { type Reason, reasonSchema } from "../TaskFailed.ts"

/** How a run ended, as it is stored. */
export type TaskExit<A, E> =
  | { readonly _tag: "Success"; readonly value: A }
  | { readonly _tag: "Failure"; readonly reason: Reason<E> }

type Coding<A, R> = (input: unknown) => Effect.Effect<A, Schema.SchemaError, R>

/** Codec of a task's outcome. */
export interface ResultCodec<out A, out E, out P, out RD = never, out RE = never> {
  readonly decodeExit: Coding<TaskExit<A, E>, RD>
  readonly encodeExit: Coding<string, RE>
  readonly decodeProgress: Coding<P, RD>
  readonly encodeProgress: Coding<string, RE>
}

/** Codec of a task's payload; what is made of it is JSON, not yet text. */
export interface PayloadCodec<out A, out RD = never, out RE = never> {
  /** Applies the defaults of the schema's constructor, then encodes. */
  readonly encode: Coding<{ readonly value: A; readonly json: unknown }, RE>
  readonly decode: Coding<A, RD>
}

/** Codec of a payload. */
export const payload = <S extends Schema.Constraint>(
  schema: S
): PayloadCodec<S["Type"], S["DecodingServices"], S["EncodingServices"]> => {
  // class schemas encode instances only, so a plain object goes through `make` first
  const construct = SchemaParser.makeEffect(schema)
  const json = Schema.toCodecJson(schema)
  const encode = Schema.encodeUnknownEffect(json)
  return {
    encode: (input) =>
      Effect.flatMap(
        Effect.mapError(construct(input), (issue) => new Schema.SchemaError(issue)),
        (value) => Effect.map(encode(value), (encoded) => ({ value, json: encoded }))
      ),
    decode: Schema.decodeUnknownEffect(json)
  }
}

/** Codec of an outcome. */
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
  const exit = Schema.fromJsonString(
    Schema.toCodecJson(
      Schema.Union([
        Schema.TaggedStruct("Success", { value: schemas.success }),
        Schema.TaggedStruct("Failure", { reason: reasonSchema(schemas.error) })
      ])
    )
  )
  const construct = SchemaParser.makeEffect(schemas.success)
  const encodeSuccess = Schema.encodeUnknownEffect(Schema.toCodecJson(schemas.success))
  const constructProgress = SchemaParser.makeEffect(schemas.progress)
  const progress = Schema.fromJsonString(Schema.toCodecJson(schemas.progress))
  const encodeExit = Schema.encodeUnknownEffect(exit)
  const encodeProgress = Schema.encodeUnknownEffect(progress)
  const made = <T>(effect: Effect.Effect<T, SchemaIssue.Issue>) =>
    Effect.mapError(effect, (issue) => new Schema.SchemaError(issue))
  return {
    // the struct is seen through an opaque type while its schemas are parameters
    decodeExit: Schema.decodeUnknownEffect(exit) as Coding<
      TaskExit<A["Type"], E["Type"]>,
      A["DecodingServices"] | E["DecodingServices"]
    >,
    // what nearly every run ends with is spared the union
    encodeExit: (outcome) =>
      isSuccess(outcome)
        ? Effect.map(
            Effect.flatMap(made(construct(outcome.value)), (value) => encodeSuccess(value)),
            (value) => JSON.stringify({ _tag: "Success", value: value ?? null })
          )
        : encodeExit(outcome),
    decodeProgress: Schema.decodeUnknownEffect(progress),
    encodeProgress: (value) => Effect.flatMap(made(constructProgress(value)), encodeProgress)
  }
}

const isSuccess = (u: unknown): u is { readonly _tag: "Success"; readonly value: unknown } =>
  (u as TaskExit<unknown, unknown>)._tag === "Success"

/** The codec of handles that know no schemas: what is stored, as JSON. */
export const json = result({ success: Schema.Json, error: Schema.Json, progress: Schema.Json })

/** The codec of failures that no handler made, for tasks that are not known here. */
export const untyped = result({ success: Schema.Void, error: Schema.Never, progress: Schema.Never })
