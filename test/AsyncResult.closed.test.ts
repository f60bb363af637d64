import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Backend, Broker, DeadLetters, Worker } from "chicory"
import { Effect, Exit, type Fiber, Option, Schedule, Scope, Stream } from "effect"
import { handle } from "./support/asyncResults.ts"
import { Add, onePayload } from "./support/enqueuing.ts"
import * as MemoryFixture from "./support/memoryFixture.ts"
import { advance, exitOf, flush, fork } from "./support/memoryFixture.ts"

type Use = Effect.Effect<unknown, unknown, Backend.Backend | Broker.Broker>

/** All ways to wait. */
const waits: Readonly<Record<string, Use>> = {
  get: AsyncResult.get(handle()),
  "get with a timeout": AsyncResult.get(handle(), { timeout: "1 hour" }),
  "get with an interval": AsyncResult.get(handle(), { pollInterval: "1 minute" }),
  "get with an interval and a timeout": AsyncResult.get(handle(), {
    pollInterval: "1 minute",
    timeout: "1 hour"
  }),
  "get with its own retries": AsyncResult.get(handle()).pipe(
    Effect.provideService(AsyncResult.ReadRetry, Schedule.spaced("1 minute"))
  ),
  exit: AsyncResult.exit(handle()),
  all: AsyncResult.all([handle(), handle("b")]),
  "all with a timeout": AsyncResult.all([handle(), handle("b")], { timeout: "1 hour" }),
  race: AsyncResult.race([handle(), handle("b")]),
  stream: Stream.runDrain(AsyncResult.stream([handle(), handle("b")])),
  "stream with a timeout": Stream.runDrain(
    AsyncResult.stream([handle(), handle("b")], { timeout: "1 hour" })
  ),
  changes: Stream.runDrain(AsyncResult.changes(handle()))
}

/** All other uses of the services. */
const calls: Readonly<Record<string, Use>> = {
  poll: AsyncResult.poll(handle()),
  state: AsyncResult.state(handle()),
  cancel: AsyncResult.cancel(handle()),
  forget: AsyncResult.forget(handle()),
  delay: Add.delay(onePayload),
  delayAll: Effect.mapError(Add.delayAll([onePayload]), ({ error }) => error),
  "DeadLetters.list": DeadLetters.list(),
  "DeadLetters.count": DeadLetters.count(),
  "DeadLetters.replay": DeadLetters.replay("a"),
  "Worker.active": Worker.active,
  "Broker.counts": Broker.counts(["default"]),
  "Broker.purge": Broker.purge("default")
}

const assertClosed = (name: string, fiber: Fiber.Fiber<unknown, unknown>) => {
  const error = Option.getOrUndefined(Exit.findErrorOption(exitOf(fiber)))
  assert(
    error instanceof Backend.BackendError || error instanceof Broker.BrokerError,
    `${name}: ${String(error)}`
  )
  assert.isFalse(error.retryable, name)
  assert.include(error.message, "the store was closed", name)
}

describe.each([
  ["with hints", {}],
  ["without hints", { hints: false }],
  ["with fused drivers", { fused: true }]
])("a store that was closed, %s", (_, options: MemoryFixture.Options) => {
  const closable = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const on = yield* Scope.provide(MemoryFixture.make(options), scope)
    return { on, close: Scope.close(scope, Exit.void) }
  })
  const start = (on: MemoryFixture.MemoryFixture, uses: Readonly<Record<string, Use>>) =>
    Effect.forEach(Object.entries(uses), ([name, use]) =>
      Effect.map(fork(Effect.provideContext(use, on.context)), (fiber) => [name, fiber] as const)
    )

  it.effect("fails all that wait for a result", () =>
    Effect.gen(function* () {
      const { close, on } = yield* closable
      yield* on.create("a")
      const waiting = yield* start(on, waits)
      yield* close
      yield* flush
      // a wait that polls learns of it at its next read
      yield* advance("1 minute")
      for (const [name, fiber] of waiting) assertClosed(name, fiber)
    })
  )

  it.effect("fails all that begin to wait, and every other call", () =>
    Effect.gen(function* () {
      const { close, on } = yield* closable
      yield* close
      for (const [name, fiber] of yield* start(on, { ...waits, ...calls })) assertClosed(name, fiber)
    })
  )
})
