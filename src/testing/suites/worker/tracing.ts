/** Spans: the work of the library makes none. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Task from "../../../Task.ts"
import type { Test } from "./fixture.ts"
import { makeRecordingTracer } from "./recordingTracer.ts"

const Work = Task.make("work", { payload: Schema.Int, success: Schema.Int })

/** Registers the tests. */
export const tracing = (test: Test): void => {
  describe("tracing", () => {
    test("an idle worker makes no span, and one that runs a task makes that of the run", function* (t) {
      const { names, trace } = makeRecordingTracer()
      yield* trace(t.startSeparateWorker([Work], Work.toLayer(Effect.succeed), { heartbeat: t.duration(1) }))
      yield* t.time.pass(3)
      assert.deepStrictEqual(names(), [])
      assert.strictEqual(yield* t.awaitValue(yield* Work.delay(1)), 1)
      yield* t.untilDrained()
      yield* t.time.pass(3)
      assert.deepStrictEqual(names(), ["process default"])
    })
  })
}
