/** Values over the cap of 4 MiB are refused with their size; values of exactly the cap are not. */
import { assert, it } from "@effect/vitest"
import { AsyncResult, type Backend, Broker, DeadLetters, Task, Worker } from "chicory"
import { Effect, Layer, Option, Schema } from "effect"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import { textOf } from "./loadTasks.ts"
import { describeEach, stores } from "./stores.ts"

const CAP = 4 * 1024 * 1024
/** Characters that JSON adds to a text. */
const QUOTES = 2
/** Characters around the text of a success. */
const ENVELOPE = '{"_tag":"Success","value":}'.length + QUOTES

/** Returns a text of that many characters. */
const Give = Task.make("give", { payload: Schema.Int, success: Schema.String })
/** Returns the length of its payload. */
const Take = Task.make("take", { payload: Schema.String, success: Schema.Int })
/** Fails with a text of that many characters. */
const Refuse = Task.make("refuse", { payload: Schema.Int, error: Schema.String })
/** Dies with a message of that many characters. */
const Die = Task.make("die", { payload: Schema.Int })
/** Writes progress of that many characters and succeeds. */
const Show = Task.make("show", { payload: Schema.Int, progress: Schema.String })

const workerLayer = Worker.layer([Give, Take, Refuse, Die, Show], { drainTimeout: 0 }).pipe(
  Layer.provide([
    Give.toLayer((size) => Effect.sync(() => textOf(1, size))),
    Take.toLayer((text) => Effect.succeed(text.length)),
    Refuse.toLayer((size) => Effect.fail(textOf(1, size))),
    Die.toLayer((size) => Effect.die(new Error(textOf(1, size)))),
    Show.toLayer((size) => Show.progress(textOf(1, size)))
  ])
)

const options = { timeout: "60 seconds" } as const

/** Waits for the reason of a failed task. */
const reasonOf = <A, E>(handle: AsyncResult.AsyncResult<A, E>) =>
  Effect.map(Effect.flip(AsyncResult.get(handle, options)), (error) => {
    assert(error._tag === "TaskFailed", error.message)
    return error.reason
  })

/** Asserts that a message names the size and the cap. */
const assertNamesSizes = (text: string, bytes: number): void => {
  assert.include(text, `${bytes} bytes`)
  assert.include(text, `${CAP}`)
}

/** Returns the one dead letter of a task. */
const letterOf = (task: Task.Any) =>
  Effect.map(DeadLetters.list(task as typeof Give), (letters) => {
    assert.strictEqual(letters.length, 1)
    return letters[0]!
  })

/** Checks that a small task still runs and that no message is left. */
const stillWorks = Effect.gen(function* () {
  assert.strictEqual(yield* AsyncResult.get(yield* Take.delay("small"), options), 5)
  yield* eventually(
    Effect.map(
      Broker.counts(["default"]),
      ([counts]) => counts!.ready + counts!.claimed + counts!.delayed === 0
    )
  )
})

await describeEach(stores, ({ location }) => {
  const test = (
    name: string,
    body: Effect.Effect<void, unknown, Backend.Backend | Broker.Broker>,
    worker:
      | Layer.Layer<Worker.Worker, never, Backend.Backend | Broker.Broker>
      | Layer.Layer<never> = workerLayer
  ) =>
    it.live(
      name,
      () =>
        Effect.flatMap(location, (location) =>
          Effect.provide(body, Layer.provideMerge(worker, StoreLocations.layer(location)))
        ),
      90_000
    )

  test(
    "payload, result and progress may be as large as the cap",
    Effect.gen(function* () {
      assert.strictEqual(
        yield* AsyncResult.get(yield* Take.delay(textOf(1, CAP - QUOTES)), options),
        CAP - QUOTES
      )
      const given = yield* AsyncResult.get(yield* Give.delay(CAP - ENVELOPE), options)
      assert.isTrue(given === textOf(1, CAP - ENVELOPE))
      const shown = yield* Show.delay(CAP - QUOTES)
      yield* AsyncResult.get(shown, options)
      const { progress } = Option.getOrThrow(yield* AsyncResult.poll(shown))
      assert.isTrue(Option.getOrThrow(progress) === textOf(1, CAP - QUOTES))
      // as large as a record becomes, and its dead letter
      const refused = yield* reasonOf(yield* Refuse.delay(CAP - 200))
      assert(refused._tag === "Failed")
      assert.isTrue(refused.error === textOf(1, CAP - 200))
      yield* stillWorks
    })
  )

  test(
    "a payload over the cap fails with its size and enqueues nothing",
    Effect.gen(function* () {
      const refused = yield* Effect.flip(Take.delay(textOf(1, CAP - QUOTES + 1)))
      assert(refused._tag === "PayloadTooLarge", refused.message)
      assert.strictEqual(refused.bytes, CAP + 1)
      assert.strictEqual(refused.limit, CAP)
      assertNamesSizes(`${refused.message}`, CAP + 1)
      // counted in bytes, not in characters
      const wide = yield* Effect.flip(Take.delay("\u20ac".repeat(CAP / 2)))
      assert(wide._tag === "PayloadTooLarge", wide.message)
      assert.strictEqual(wide.bytes, (CAP / 2) * 3 + QUOTES)
      yield* stillWorks
    })
  )

  test(
    "delayAll enqueues the payloads before one over the cap, and no others",
    Effect.gen(function* () {
      const payloads = Array.from({ length: 600 }, (_, n) => (n === 400 ? textOf(n, CAP) : textOf(n, 10)))
      const partly = yield* Effect.flip(Take.delayAll(payloads))
      assert(partly.error._tag === "PayloadTooLarge", partly.message)
      assert.strictEqual(partly.accepted.length, 400)
      const [counts] = yield* Broker.counts(["default"])
      assert.strictEqual(counts!.ready, 400)
      const found = yield* Effect.forEach(partly.accepted, (id) => AsyncResult.poll(Take.result(id)), {
        concurrency: "unbounded"
      })
      assert.isTrue(found.every((one) => Option.isSome(one) && one.value.state === "PENDING"))
    }),
    Layer.empty
  )

  test(
    "a result over the cap ends its task as ResultInvalid with its size and a dead letter",
    Effect.gen(function* () {
      const reason = yield* reasonOf(yield* Give.delay(CAP - ENVELOPE + 1))
      assert(reason._tag === "ResultInvalid", reason._tag)
      assertNamesSizes(reason.issue, CAP + 1)
      const letter = yield* letterOf(Give)
      assert.strictEqual(letter.reason._tag, "ResultInvalid")
      const far = yield* reasonOf(yield* Give.delay(10 * CAP))
      assert(far._tag === "ResultInvalid", far._tag)
      yield* stillWorks
    })
  )

  test(
    "an error over the cap ends its task as ResultInvalid; a defect over the cap is truncated",
    Effect.gen(function* () {
      const refused = yield* reasonOf(yield* Refuse.delay(CAP))
      assert(refused._tag === "ResultInvalid", refused._tag)
      assert.include(refused.issue, `${CAP}`)
      assert.strictEqual((yield* letterOf(Refuse)).reason._tag, "ResultInvalid")
      const died = yield* reasonOf(yield* Die.delay(CAP))
      assert(died._tag === "Died" && died.defect instanceof Error)
      assert.isTrue(died.defect.message.includes(textOf(1, 1000)))
      assert.strictEqual((yield* letterOf(Die)).reason._tag, "Died")
      yield* stillWorks
    })
  )

  test(
    "progress over the cap is a defect that names its size and stores none",
    Effect.gen(function* () {
      const handles = yield* Show.delayAll([CAP - QUOTES + 1, 5 * CAP])
      for (const handle of handles) {
        const reason = yield* reasonOf(handle)
        assert(reason._tag === "Died" && reason.defect instanceof Error, reason._tag)
        assert.include(reason.defect.message, `${CAP}`)
        const { progress } = Option.getOrThrow(yield* AsyncResult.poll(handle))
        assert.isTrue(Option.isNone(progress))
      }
      yield* stillWorks
    })
  )
})
