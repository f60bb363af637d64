/** What tasks ask for, and their stores lack, shows when the layer of a worker or of a producer is built. */
import { assert, describe, it } from "@effect/vitest"
import { Backend, Broker, Task, Worker } from "chicory"
import { Cause, Effect, Exit, Layer } from "effect"
import { Add, Keyed } from "./support/enqueuing.ts"
import { test } from "./support/memoryTest.ts"

/** Returns the message of the defect of a layer. */
const defectOf = <R>(layer: Layer.Layer<never, never, R>) =>
  Effect.map(Effect.exit(Layer.build(layer)), (exit) => {
    assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    const defect = Cause.squash(exit.cause)
    assert.instanceOf(defect, RangeError)
    return defect.message
  })

describe("what the stores lack", () => {
  const poor: Parameters<typeof test>[2] = {
    broker: (driver) => ({
      capabilities: { ...driver.capabilities, priorities: 1, maxDelayMillis: 60_000 }
    })
  }
  const Urgent = Task.make("urgent", { priority: 200 })
  const Bulk = Task.make("bulk", { priority: 1 })

  test(
    "a task with a priority is a defect of the worker layer, which names it and the broker",
    function* (on) {
      const layer = Worker.layer([Add, Urgent]).pipe(
        Layer.provide([Add.toLayer(() => Effect.succeed(0)), Urgent.toLayer(() => Effect.void)]),
        Layer.provide(on.layer)
      )
      assert.strictEqual(
        yield* defectOf(layer),
        'Worker.layer: the memory broker does not support priorities, which the task "urgent" asks for'
      )
      assert.strictEqual(on.count("heartbeat", "claim"), 0)
    },
    poor
  )

  test(
    "tasks with a priority are a defect of the check, which names them and the broker",
    function* () {
      assert.strictEqual(
        yield* defectOf(Task.layerCheck([Urgent, Add, Bulk])),
        'Task.layerCheck: the memory broker does not support priorities, which the tasks "urgent", "bulk" ask for'
      )
      yield* Layer.build(Task.layerCheck([Add]))
    },
    poor
  )

  test(
    "options that calls will have are a defect of the check",
    function* () {
      assert.include(
        yield* defectOf(Task.layerCheck([Add], { priority: 1 })),
        'does not support priorities, which the task "add" asks for'
      )
      assert.include(
        yield* defectOf(Task.layerCheck([Add], { delay: "61 seconds" })),
        'does not support a delay of more than 60000 milliseconds, which the task "add" asks for'
      )
      yield* Layer.build(Task.layerCheck([Add], { delay: "1 minute" }))
    },
    poor
  )

  test("options out of range are a defect of the check", function* () {
    assert.include(
      yield* defectOf(Task.layerCheck([Add], { priority: 256 })),
      "Task.layerCheck: priority must be a whole number from 0 to 255"
    )
  })

  it.effect("an idempotency key without a backend is a defect of the worker layer and of the check", () =>
    Effect.gen(function* () {
      const lack = 'without a backend there are no idempotency keys, which the task "keyed" asks for'
      const worker = Layer.provide(
        Worker.layer([Keyed]),
        Keyed.toLayer(() => Effect.succeed(""))
      )
      assert.strictEqual(yield* defectOf(worker), `Worker.layer: ${lack}`)
      assert.strictEqual(yield* defectOf(Task.layerCheck([Keyed])), `Task.layerCheck: ${lack}`)
    }).pipe(Effect.provide(Layer.mergeAll(Backend.layerNotConfigured, Broker.layerMemory)))
  )
})
