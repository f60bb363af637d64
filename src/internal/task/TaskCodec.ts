/**
 * The codecs of a task, built once when the task is made: building one costs fifty times what using it does.
 *
 * A schema that waits for nothing answers an `Exit` at once. The eager operators keep it one, so that no fiber has
 * to step through what is there already.
 */
import { Effect, Schema, type SchemaIssue, SchemaParser } from "effect"
import { type Reason, reasonSchema } from "../../TaskFailed.ts"
import { parse, stringify } from "../json.ts"

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
      Effect.flatMapEager(constructed(construct(input)), (value) =>
        Effect.mapEager(encode(value), (encoded) => ({ value, json: encoded }))
      ),
    decode: Schema.decodeUnknownEffect(json)
  }
}

const constructed = <T, R>(effect: Effect.Effect<T, SchemaIssue.Issue, R>) =>
  Effect.mapErrorEager(effect, (issue) => new Schema.SchemaError(issue))

/** What is made of a schema's values as JSON, as text. */
const textOf = <S extends Schema.Constraint>(schema: S) => {
  const json = Schema.toCodecJson(schema)
  const decode = Schema.decodeUnknownEffect(json)
  const encode = Schema.encodeUnknownEffect(json)
  return {
    decode: (text: unknown) => Effect.flatMapEager(parse(text), (value) => decode(value)),
    encode: (value: unknown) => Effect.flatMapEager(encode(value), stringify)
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
    // the struct is seen through an opaque type while its schemas are parameters
    decodeExit: exit.decode as Coding<
      TaskExit<A["Type"], E["Type"]>,
      A["DecodingServices"] | E["DecodingServices"]
    >,
    // what nearly every run ends with is spared the union
    encodeExit: (outcome) =>
      isSuccess(outcome)
        ? Effect.mapEager(
            Effect.flatMapEager(
              Effect.flatMapEager(constructed(construct(outcome.value)), (value) => encodeSuccess(value)),
              stringify
            ),
            (value) => `{"_tag":"Success","value":${value}}`
          )
        : exit.encode(outcome),
    decodeProgress: progress.decode,
    encodeProgress: (value) => Effect.flatMap(constructed(constructProgress(value)), progress.encode)
  }
}

const isSuccess = (u: unknown): u is { readonly _tag: "Success"; readonly value: unknown } =>
  (u as TaskExit<unknown, unknown>)._tag === "Success"

/** The codec of handles that know no schemas: what is stored, as JSON. */
export const json = result({ success: Schema.Json, error: Schema.Json, progress: Schema.Json })

/** The codec of failures that no handler made, for tasks that are not known here. */
export const untyped = result({ success: Schema.Void, error: Schema.Never, progress: Schema.Never })
