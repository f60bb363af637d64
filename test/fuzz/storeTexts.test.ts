import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Logger, Schema } from "effect"
import * as Heartbeat from "../../src/internal/driver/heartbeatCodec.ts"
import * as BodyText from "../../src/redis/BodyText.ts"
import * as ClaimHandle from "../../src/redis/ClaimHandle.ts"
import { HashFields } from "../../src/redis/fieldDecoding.ts"
import * as FieldText from "../../src/redis/FieldText.ts"
import * as MessageText from "../../src/redis/MessageText.ts"
import * as RecordText from "../../src/redis/RecordText.ts"
import { CorruptKey } from "../../src/redis/RedisStoreError.ts"
import { decodeSettled } from "../../src/redis/scripts/lib/settlements.ts"
import { decodeStarted } from "../../src/redis/scripts/lib/starts.ts"
import * as TaskRow from "../../src/sql/backend/TaskRow.ts"
import { seqOf } from "../../src/sql/broker/MessageRow.ts"
import { fromBody, toBody } from "../../src/sql/dialect/encodedBody.ts"
import * as Row from "../../src/sql/Row.ts"
import { isTerminal } from "../../src/TaskState.ts"
import {
  elementOf,
  anything,
  assertAnswers,
  bytes,
  loneSurrogate,
  json,
  oneOf,
  manyRuns,
  text,
  textLike,
  wellFormed
} from "./randomValues.ts"

const small = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))

/** Asserts that a failure is a `CorruptKey` with its key and field. */
const assertCorrupt = (exit: Exit.Exit<unknown, unknown>, key: string): void => {
  if (Exit.isSuccess(exit)) return
  const error = Exit.findErrorOption(exit)
  assert(error._tag === "Some" && error.value instanceof CorruptKey, String(exit))
  assert.strictEqual(error.value.key, key)
  assert.include(error.value.message, key)
  assert.notStrictEqual(error.value.field, "")
}

const attempt = <A>(run: () => A): Exit.Exit<A, unknown> =>
  Effect.runSyncExit(Effect.try({ try: run, catch: (error) => error }))

describe("guarantee 10: Redis texts", () => {
  it.effect.prop(
    "a field round-trips as one non-empty word",
    { text },
    ({ text }) =>
      Effect.sync(() => {
        const field = FieldText.encode(text)
        assert.strictEqual(FieldText.decode(field), text)
        assert.match(field, /^\S+$/)
        assert.notStrictEqual(field, "-")
      }),
    manyRuns
  )

  const plain = [
    "PENDING",
    "-",
    "-",
    "-",
    "1",
    "-",
    "0",
    "0",
    "0",
    "0",
    "0",
    "-",
    "-",
    "-",
    "-",
    "-",
    "count",
    "1",
    "-"
  ]
  const record = [...plain, ...Array.from({ length: RecordText.FIELDS.length - plain.length }, () => "-")]
  const recordText = Arbitrary.map(
    Arbitrary.all([
      elementOf(RecordText.FIELDS.map((_, at) => at)),
      oneOf(text, elementOf(["-", "", "%zz", "1 2"])),
      text,
      elementOf([0, 1, 2, 3])
    ]),
    ([at, odd, exit, how]) =>
      how === 0
        ? odd
        : how === 1
          ? `${record.slice(0, at).join(" ")}\n${exit}`
          : `${record.map((field, place) => (place === at ? odd : field)).join(" ")}\n${exit}`
  )

  it.effect.prop(
    "a record decodes, or fails as corrupt with its key and field",
    { value: recordText },
    ({ value }) =>
      Effect.sync(() => {
        const exit = attempt(() => RecordText.decode("the key", "id", value, () => undefined))
        assertCorrupt(exit, "the key")
        if (Exit.isFailure(exit)) return
        for (const count of [
          exit.value.generation,
          exit.value.attempt,
          exit.value.retries,
          exit.value.crashes
        ]) {
          assert.isTrue(Number.isSafeInteger(count))
        }
        for (const time of [
          exit.value.enqueuedAt,
          exit.value.startedAt,
          exit.value.finishedAt,
          exit.value.expiresAt
        ]) {
          assert.isTrue(time === null || Number.isSafeInteger(time))
        }
        assert.isBoolean(isTerminal(exit.value.state))
      }),
    manyRuns
  )

  it.effect.prop(
    "a message round-trips",
    {
      id: Arbitrary.filter(text, (id) => id !== ""),
      task: text,
      body: text,
      generation: Arbitrary.schema(small),
      incarnation: elementOf(["", "0f", "z".repeat(32)])
    },
    (message) =>
      Effect.sync(() => {
        const sent = MessageText.encode({ ...message, queue: "q", priority: 0, delayMillis: 0 })
        const { body, generation, id, incarnation, task } = message
        assert.deepStrictEqual(MessageText.decode(sent), { id, task, incarnation, generation, body })
      }),
    manyRuns
  )

  const heads = oneOf(
    text,
    Arbitrary.map(
      Arbitrary.all([text, text, text]),
      ([first, second, body]) => `a count ${first} ${second}\n${body}`
    ),
    Arbitrary.map(Arbitrary.all([text, text]), ([id, body]) => `${id} count 0 \n${body}`)
  )

  it.effect.prop(
    "a foreign text decodes to a body with safe numbers",
    { heads, bytes },
    ({ bytes, heads }) =>
      Effect.sync(() => {
        for (const parsed of [
          MessageText.decode(heads),
          MessageText.decodeHex(Buffer.from(heads).toString("hex")),
          MessageText.decodeHex(Buffer.concat([Buffer.from("a count 0 \n"), bytes]).toString("hex"))
        ]) {
          assert.isTrue(parsed.generation === undefined || Number.isSafeInteger(parsed.generation), heads)
          assert.strictEqual(parsed.id === undefined, parsed.task === undefined)
        }
        const bare = MessageText.decodeHex(Buffer.from(bytes).toString("hex"))
        if (bare.id === undefined) assert.deepStrictEqual(Buffer.from(bare.body), Buffer.from(bytes))
      }),
    manyRuns
  )

  it.effect.prop(
    "a body of text or bytes round-trips",
    { text, bytes },
    ({ bytes, text }) =>
      Effect.sync(() => {
        assert.strictEqual(BodyText.decode(BodyText.encode(text)), text)
        assert.deepStrictEqual(BodyText.decode(BodyText.encode(bytes)), bytes)
        BodyText.decode(text)
      }),
    manyRuns
  )

  it.effect.prop(
    "a claim handle round-trips, and another text has no shard",
    { shard: elementOf([0, 1, 2, 3]), queue: text, other: text },
    ({ other, queue, shard }) =>
      Effect.sync(() => {
        const handle = ClaimHandle.encode(shard, "000000000000001:1:100:a", queue)
        assert.deepStrictEqual(ClaimHandle.decode(handle, 4), {
          handle,
          shard,
          member: "000000000000001:1:100:a",
          queue
        })
        assert.isUndefined(ClaimHandle.decode(`9/${other}`, 4))
      }),
    manyRuns
  )

  it.effect.prop(
    "an answer to start or settle decodes to a known tag with finite numbers",
    {
      tag: elementOf(["R", "D", "B", "L", "", "X"]),
      rest: oneOf(text, elementOf(["inf", "-inf", "nan", "1e999"]))
    },
    ({ rest, tag }) =>
      Effect.sync(() => {
        const started = decodeStarted(`${tag} ${rest}`)
        if (started._tag === "Busy") assert.isTrue(Number.isFinite(started.millis), `${tag} ${rest}`)
        assert.include(["Stored", "Cancelled", "Lost"], decodeSettled(rest))
      }),
    manyRuns
  )

  it.effect.prop(
    "the fields of a dead letter decode, or fail as corrupt",
    { values: Arbitrary.array(oneOf<string | null>(text, Arbitrary.Constant(null)), { maxLength: 3 }) },
    ({ values }) =>
      Effect.sync(() => {
        const fields = new HashFields("the key", ["one", "two", "three"], values)
        for (const at of [0, 1, 2]) {
          assertCorrupt(
            attempt(() => fields.text(at)),
            "the key"
          )
          const integer = attempt(() => fields.integer(at))
          assertCorrupt(integer, "the key")
          if (Exit.isSuccess(integer)) assert.isTrue(Number.isSafeInteger(integer.value))
        }
      }),
    manyRuns
  )
})

const worker = { id: "w", hostname: "h", pid: 1, queues: ["q"], tasks: ["t"], concurrency: 1, running: 0 }

describe("guarantee 10: heartbeats", () => {
  const times = elementOf([0, -1, NaN, Infinity, 1.5, 2 ** 60, 1_800_000_000_000])

  it.effect.prop(
    "a malformed heartbeat is skipped without hiding the others",
    { info: textLike(worker), startedAt: times, seenAt: times },
    (odd) =>
      Effect.gen(function* () {
        const good = { info: JSON.stringify(worker), startedAt: 1, seenAt: 2 }
        const listed = yield* Heartbeat.decodeAll([good, odd, good])
        assert.deepStrictEqual(listed[0], { ...worker, startedAt: 1, seenAt: 2 })
        assert.deepStrictEqual(listed.at(-1), listed[0])
        assert.oneOf(listed.length, [2, 3])
        for (const { concurrency, id, pid, queues, running, seenAt, startedAt, tasks } of listed) {
          assert.isString(id)
          for (const count of [concurrency, pid, running]) assert.isNumber(count)
          for (const name of [...queues, ...tasks]) assert.isString(name)
          for (const time of [startedAt, seenAt]) assert.isTrue(Number.isSafeInteger(time))
        }
      }).pipe(Effect.provide(Logger.layer([]))),
    manyRuns
  )

  it.effect.prop(
    "a heartbeat round-trips",
    { hostname: text, queue: text },
    ({ hostname, queue }) =>
      Effect.gen(function* () {
        const said = { ...worker, hostname, queues: [queue, loneSurrogate] }
        const info = yield* Heartbeat.encode(said)
        assert.deepStrictEqual(yield* Heartbeat.decodeAll([{ info, startedAt: 1, seenAt: 2 }]), [
          { ...said, startedAt: 1, seenAt: 2 }
        ])
      }),
    manyRuns
  )
})

describe("guarantee 10: SQL rows", () => {
  const row: Readonly<TaskRow.TaskRow> = {
    id: "a",
    task: "count",
    incarnation: "",
    payload_hash: "",
    published: 1,
    state: "PENDING",
    generation: 0,
    attempt: 0,
    retries: 0,
    crashes: 0,
    fence: 0,
    token: null,
    at_most_once: 0,
    cancel_requested: 0,
    ended: null,
    expires_at: null,
    due_at: null,
    lease_until: null,
    retention: null,
    remove_at: null,
    worker: null
  }
  const read = Row.reader<TaskRow.TaskRow>("store", "tasks", TaskRow.shape)

  it.effect.prop(
    "a row decodes, or fails as corrupt with its column, and the rest of the batch is read",
    { column: elementOf(Object.keys(row)), value: anything },
    ({ column, value }) =>
      Effect.gen(function* () {
        const edited = { ...row, [column]: value }
        const exit = yield* Effect.exit(read([{ ...row }, edited]))
        assertAnswers(exit, (rows) => rows.length === 2)
        if (Exit.isSuccess(exit)) {
          const { [column as "id"]: found } = exit.value[1]!
          assert.isTrue((TaskRow.shape as Record<string, Row.Check<unknown>>)[column]!(found))
        } else {
          const error = yield* Effect.flip(exit)
          assert.strictEqual(error.column, column)
          for (const word of ["store", "tasks", column]) assert.include(error.message, word)
          assert.isBelow(error.message.length, 300)
        }
        assert.lengthOf(yield* read([{ ...row }]), 1)
      }),
    manyRuns
  )

  it.effect.prop(
    "a body of text or bytes round-trips through any text column",
    { wellFormed, bytes },
    ({ bytes, wellFormed }) =>
      Effect.sync(() => {
        for (const body of [wellFormed, bytes]) {
          const stored = toBody(body)!
          assert.deepStrictEqual(fromBody(stored), body)
          assert.notInclude(stored, "\0")
          assert.isTrue(stored.isWellFormed())
        }
      }),
    manyRuns
  )

  it.effect.prop(
    "any stored body decodes to text or bytes",
    {
      odd: oneOf(
        text,
        Arbitrary.map(text, (rest) => `base64:${rest}`),
        Arbitrary.map(text, (rest) => `base64-text:${rest}`)
      )
    },
    ({ odd }) => Effect.sync(() => assert.isTrue(Row.bytes(fromBody(odd)))),
    manyRuns
  )

  it.effect.prop(
    "any claim handle decodes to a safe number",
    {
      odd: oneOf(
        text,
        Arbitrary.map(json, (value) => JSON.stringify(value))
      )
    },
    ({ odd }) => Effect.sync(() => assert.isTrue(Number.isSafeInteger(seqOf(odd)))),
    manyRuns
  )
})
