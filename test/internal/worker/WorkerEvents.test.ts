import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { MAX_BEHIND, type WorkerEvent, WorkerEvents } from "../../../src/internal/worker/WorkerEvents.ts"
import { flush, fork } from "../../support/memoryFixture.ts"

const started = (attempt: number): WorkerEvent => ({
  _tag: "Started",
  taskId: "a",
  taskName: "work",
  queue: "default",
  attempt
})

describe("the events of a worker", () => {
  it.effect("have listeners while a stream is run, and none before and afterwards", () =>
    Effect.gen(function* () {
      const events = new WorkerEvents()
      assert.isFalse(events.hasListeners)
      const listening = yield* fork(Stream.runDrain(events.stream))
      assert.isTrue(events.hasListeners)
      yield* Fiber.interrupt(listening)
      assert.isFalse(events.hasListeners)
    })
  )

  it.effect("are dropped from the oldest on for a listener that is too far behind", () =>
    Effect.gen(function* () {
      const events = new WorkerEvents()
      const heard: Array<number> = []
      let mayHear = false
      yield* fork(
        Stream.runForEach(events.stream, ({ attempt }) =>
          Effect.suspend(() => {
            heard.push(attempt)
            return mayHear ? Effect.void : Effect.never
          })
        )
      )
      const later = yield* fork(
        Stream.runForEach(events.stream, ({ attempt }) => Effect.sync(() => void heard.push(-attempt)))
      )
      events.emit(started(0))
      yield* flush
      assert.deepStrictEqual(heard, [0, -0])
      mayHear = true
      heard.length = 0
      for (let n = 1; n <= MAX_BEHIND + 10; n++) events.emit(started(n))
      events.end()
      yield* Fiber.join(later)
      assert.strictEqual(heard.length, MAX_BEHIND)
      assert.deepStrictEqual([heard[0], heard.at(-1)], [-11, -(MAX_BEHIND + 10)])
    })
  )
})
