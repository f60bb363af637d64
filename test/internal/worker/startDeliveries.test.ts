import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { captureLogs } from "../../../src/testing/suites/worker/captureLogs.ts"
import { advance } from "../../support/memoryFixture.ts"
import * as WorkerFixture from "./workerFixture.ts"

/** Returns the lines about messages that a worker cannot start, as the store is away until their leases are over. */
const linesOf = (ids: ReadonlyArray<string>) => {
  const logs = captureLogs()
  return Effect.gen(function* () {
    const { enqueue, start } = yield* WorkerFixture.make({
      worker: { lease: "2 seconds" },
      backend: () => ({ start: () => Effect.fail("it is away") })
    })
    for (const id of ids) yield* enqueue(id)
    yield* start
    for (let second = 0; second < 5; second++) yield* advance("1 second")
    return logs.beginning("Failed to start")
  }).pipe(logs.capture)
}

it.effect("messages that cannot be started are a line with their task, queue and ids", () =>
  Effect.map(linesOf(["a", "b"]), ([line]) => {
    assert.strictEqual(line?.text, "Failed to start 2 tasks; their messages are released")
    assert.deepInclude(line?.annotations, { taskName: "work", queue: "default", taskIds: ["a", "b"] })
    assert.notProperty(line?.annotations, "taskId")
  })
)

it.effect("a message that cannot be started is a line with its task, queue and id", () =>
  Effect.map(linesOf(["a"]), ([line]) => {
    assert.strictEqual(line?.text, "Failed to start 1 task; its message is released")
    assert.deepInclude(line?.annotations, { taskName: "work", queue: "default", taskId: "a" })
  })
)
