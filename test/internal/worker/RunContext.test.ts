import { assert, describe, it } from "@effect/vitest"
import { RetryPolicy, Task } from "chicory"
import { Clock, Context, Effect, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { definitionOf } from "../../../src/internal/task/TaskDefinition.ts"
import { RunContext } from "../../../src/internal/worker/RunContext.ts"

const make = (
  schedule: RetryPolicy.RetryPolicy["schedule"],
  retries: number,
  context: Context.Context<never> = Context.empty()
) => {
  const task = Task.make("t", { retry: RetryPolicy.fromSchedule(schedule, { maxRetries: 5 }) })
  return new RunContext(
    "id",
    definitionOf(task),
    { attempt: retries + 1, fence: 1, retries },
    context as never
  )
}

const left = ({ isLastRetry, remainingRetries }: RunContext) => [isLastRetry, remainingRetries]

describe("the context of a run", () => {
  it("follows the schedule only when a handler asks for the retries that are left", () => {
    let steps = 0
    const run = make(
      Schedule.while(Schedule.forever, () => {
        steps++
        return true
      }),
      3
    )
    assert.deepInclude(run, { taskId: "id", taskName: "t", attempt: 4, retries: 3, maxRetries: 5 })
    assert.strictEqual(steps, 0)
    assert.deepStrictEqual(left(run), [false, 2])
    assert.isAbove(steps, 0)
  })

  it.effect("follows the schedule at the time of the worker's clock", () =>
    Effect.gen(function* () {
      const context = Context.make(Clock.Clock, yield* Clock.Clock)
      const opening = Schedule.while(Schedule.spaced("1 hour"), ({ now }) => now < 7_000_000)
      assert.deepStrictEqual(left(make(opening, 1, context)), [false, 2])
      yield* TestClock.setTime(7_000_000)
      assert.deepStrictEqual(left(make(opening, 1, context)), [true, 0])
    })
  )

  it("leaves no retry where the schedule dies", () => {
    const failing = Schedule.modifyDelay(Schedule.forever, () => Effect.die("a bug"))
    assert.deepStrictEqual(left(make(failing, 0)), [true, 0])
  })

  it("goes by maxRetries where the schedule does not answer at once", () => {
    let interrupted = 0
    const asleep = Schedule.modifyDelay(Schedule.recurs(1), () =>
      Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
    )
    assert.deepStrictEqual(left(make(asleep, 1)), [false, 4])
    assert.deepStrictEqual(left(make(asleep, 5)), [true, 0])
    assert.strictEqual(interrupted, 2)
  })
})
