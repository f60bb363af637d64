/** Values that are nested so deeply that reading and writing them would block the process. */
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, DeadLetters, RetryPolicy, Task } from "chicory"
import { Effect, Layer, Schema, type Scope } from "effect"
import { eventually, type Store, startWorker } from "../support/storeFixture.ts"

const text = `${"[".repeat(100_000)}${"]".repeat(100_000)}`
const deep: unknown = JSON.parse(text)

const Any = Task.make("any", {
  payload: { kind: Schema.String, value: Schema.optionalKey(Schema.Unknown) },
  success: Schema.Unknown,
  error: Schema.String,
  progress: Schema.Unknown,
  retry: RetryPolicy.fixed({ maxRetries: 2, delay: "10 millis" })
})

const body = (id: string): string =>
  `{"v":1,"id":"${id}","generation":0,"task":"any","queue":"default","retries":0,"priority":100,"payload":{"kind":"fail","value":${text}}}`

const test = (
  name: string,
  backend: Layer.Layer<Backend.Backend>,
  act: (begun: Array<string>) => Effect.Effect<void, unknown, Scope.Scope | Backend.Backend | Broker.Broker>
) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const store: Store = yield* Layer.build(Layer.merge(backend, Broker.layerMemory))
      const begun: Array<string> = []
      yield* startWorker(
        store,
        Any,
        Any.toLayer(({ kind }) =>
          Effect.gen(function* () {
            begun.push(kind)
            if (kind === "fail") return yield* Effect.fail("refused")
            if (kind === "progress") yield* Any.progress(deep)
            return kind === "result" ? deep : 1
          })
        ),
        { lease: "500 millis" }
      )
      yield* Effect.provideContext(act(begun), store)
    })
  )

const publish = (id: string) =>
  Effect.flatMap(Broker.Broker, ({ publish }) =>
    publish.one({ id, task: "any", queue: "default", priority: 100, delayMillis: 0, body: body(id) })
  )

const drained = eventually(
  Effect.map(
    Broker.counts(["default"]),
    ([counts]) => counts!.ready + counts!.delayed + counts!.claimed === 0
  )
).pipe(Effect.timeout("25 seconds"))

const stillWorks = Effect.flatMap(Any.delay({ kind: "plain" }), (handle) =>
  AsyncResult.get(handle, { timeout: "25 seconds" })
)

describe.concurrent("a deeply nested value", () => {
  test("as a payload fails its producer with EncodeError", Backend.layerMemory, () =>
    Effect.gen(function* () {
      const refused = yield* Effect.flip(Any.delay({ kind: "plain", value: deep }))
      assert.strictEqual(refused._tag, "EncodeError")
      yield* stillWorks
    })
  )

  test("as a result ends its task with ResultInvalid without a second run", Backend.layerMemory, (begun) =>
    Effect.gen(function* () {
      const handle = yield* Any.delay({ kind: "result" })
      const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "25 seconds" }))
      assert(failed._tag === "TaskFailed" && failed.reason._tag === "ResultInvalid", String(failed))
      assert.strictEqual(failed.reason.side, "worker")
      assert.deepStrictEqual(begun, ["result"])
      yield* stillWorks
    })
  )

  test("as progress ends its task", Backend.layerMemory, () =>
    Effect.gen(function* () {
      const handle = yield* Any.delay({ kind: "progress" })
      const failed = yield* Effect.flip(AsyncResult.get(handle, { timeout: "25 seconds" }))
      assert.strictEqual(failed._tag, "TaskFailed")
      yield* stillWorks
    })
  )

  test(
    "in a foreign message is dead-lettered, and its letter cannot be replayed",
    Backend.layerMemory,
    (begun) =>
      Effect.gen(function* () {
        const { create } = yield* Backend.Backend
        yield* create.one({
          id: "deep",
          task: "any",
          incarnation: "",
          queue: "default",
          key: undefined,
          payloadHash: "",
          delayMillis: 0,
          expiresMillis: undefined,
          retentionMillis: undefined,
          reservedMillis: undefined
        })
        yield* publish("deep")
        const failed = yield* Effect.flip(AsyncResult.get(Any.result("deep"), { timeout: "25 seconds" }))
        assert(failed._tag === "TaskFailed" && failed.reason._tag === "PayloadInvalid", String(failed))
        assert.include(failed.message, "Expected at most 1000 levels of nesting")
        assert.deepStrictEqual(begun, [])
        const [letter] = yield* DeadLetters.list(Any)
        assert.strictEqual(letter!.raw, body("deep"))
        const refused = yield* Effect.flip(DeadLetters.replay(letter!.id))
        assert.strictEqual(refused._tag, "NotReplayable")
        // the task has not been reopened
        assert.strictEqual(yield* AsyncResult.state(Any.result("deep")), "FAILURE")
        assert.strictEqual(yield* DeadLetters.count(Any), 1)
        yield* stillWorks
      })
  )

  test("in a message without a backend is dropped", Backend.layerNotConfigured, (begun) =>
    Effect.gen(function* () {
      yield* publish("deep")
      yield* drained
      assert.deepStrictEqual(begun, [])
      yield* Any.send({ kind: "plain" })
      yield* eventually(Effect.sync(() => begun.includes("plain")))
      yield* drained
    })
  )
})
