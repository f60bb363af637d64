/** `DeadLetters`: entries typed by their task. */
import { type Backend, type Broker, DeadLetters, type TaskFailed } from "chicory"
import { type DateTime, Effect, type Option, Result, type Schema, type Stream } from "effect"
import { type CardDeclined, Charge, type Opener, type RateLimited, Reveal } from "./subjects.ts"
import { expectType, type ReadError, type Store } from "./support.ts"

// list: of one task
type ChargeEntry = DeadLetters.Entry<{ readonly cents: number }, RateLimited | CardDeclined>
declare const cursor: DeadLetters.Cursor
const letters = DeadLetters.list(Charge, { limit: 20, after: cursor })
expectType(letters).is<Effect.Effect<ReadonlyArray<ChargeEntry>, ReadError, Backend.Backend>>(true)
expectType(DeadLetters.list(Charge)).is<typeof letters>(true)
declare const entry: ChargeEntry
expectType(entry.cursor).is<DeadLetters.Cursor>(true)
expectType(entry.taskId).is<Option.Option<string>>(true)
expectType(entry.taskName).is<Option.Option<string>>(true)
expectType(entry.payload).is<Result.Result<{ readonly cents: number }, Schema.SchemaError>>(true)
expectType(entry.reason).is<TaskFailed.Reason<RateLimited | CardDeclined>>(true)
expectType(entry.at).is<DateTime.Utc>(true)
expectType(entry.raw).is<string | Uint8Array>(true)

// list: of all, as JSON
type AnyLetters = Effect.Effect<
  ReadonlyArray<DeadLetters.Entry<Schema.Json, Schema.Json>>,
  ReadError,
  Backend.Backend
>
expectType(DeadLetters.list()).is<AnyLetters>(true)
expectType(DeadLetters.list({ limit: 20 })).is<AnyLetters>(true)
// @ts-expect-error a misspelt option
DeadLetters.list(Charge, { limmit: 20 })
// @ts-expect-error an id is no cursor
DeadLetters.list(Charge, { after: "0190:0" })
// @ts-expect-error a name is no task
DeadLetters.list("card.charge")

// reading needs what decodes the payload and the error
expectType(DeadLetters.list(Reveal)).is<
  Effect.Effect<
    ReadonlyArray<DeadLetters.Entry<{ readonly secret: string }, never>>,
    ReadError,
    Backend.Backend | Opener
  >
>(true)

// stream
expectType(DeadLetters.stream(Charge)).is<Stream.Stream<ChargeEntry, ReadError, Backend.Backend>>(true)
expectType(DeadLetters.stream({ after: cursor })).is<
  Stream.Stream<DeadLetters.Entry<Schema.Json, Schema.Json>, ReadError, Backend.Backend>
>(true)

// the rest
type Counted = Effect.Effect<number, ReadError, Backend.Backend>
expectType(DeadLetters.count()).is<Counted>(true)
expectType(DeadLetters.count(Charge)).is<Counted>(true)
expectType(DeadLetters.purge()).is<Counted>(true)
expectType(DeadLetters.purge(Charge)).is<Counted>(true)
expectType(DeadLetters.remove("0190:0")).is<Effect.Effect<boolean, ReadError, Backend.Backend>>(true)
expectType(DeadLetters.replay("0190:0")).is<
  Effect.Effect<boolean, DeadLetters.NotReplayable | Broker.BrokerError | ReadError, Store>
>(true)

// all operations together
const replayLimited = Effect.gen(function* () {
  for (const { id, payload, raw, reason } of yield* letters) {
    if (Result.isFailure(payload)) {
      yield* Effect.logError(payload.failure.message, raw)
    } else if (reason._tag === "Failed" && reason.error._tag === "RateLimited" && payload.success.cents > 0) {
      yield* Effect.logInfo(reason.error.retryAfter)
      yield* DeadLetters.replay(id)
    }
  }
  return yield* DeadLetters.purge(Charge)
})
expectType(replayLimited).is<
  Effect.Effect<number, DeadLetters.NotReplayable | Broker.BrokerError | ReadError, Store>
>(true)
