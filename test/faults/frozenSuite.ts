/** Tests with workers that are frozen for longer than their lease and then thawed. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as Audit from "./audit.ts"
import type { Deployment, WorkerProcess } from "./deployments.ts"
import { payload } from "./job.ts"
import * as System from "./system.ts"
import type { WorkerEvent } from "./workerEvents.ts"

const began = (events: ReadonlyArray<WorkerEvent>, id: string): boolean =>
  events.some((event) => event._tag === "Began" && event.id === id)

const settled = (events: ReadonlyArray<WorkerEvent>, id: string, answer: "Stored" | "Lost"): boolean =>
  events.some((event) => event._tag === "Settled" && event.id === id && event.answer === answer)

/** Registers the test. */
export const suite = (
  name: string,
  makeDeployment: Effect.Effect<Deployment<WorkerProcess>, unknown, Scope.Scope>,
  leaseMillis: number
): void => {
  const worker = { lease: leaseMillis, concurrency: 2 }

  it.live(
    "guarantee 3: a frozen worker that lost its runs stores nothing, interrupts them, logs the loss and works on",
    () =>
      Effect.gen(function* () {
        const system = yield* System.make(yield* makeDeployment)
        const freezes = { point: "before the result is stored", settled: 0, stop: "SIGSTOP" } as const
        const frozen = yield* system.startWorker({ worker, killPlan: freezes })
        const [long, short] = yield* system.enqueue([
          payload(1, { millis: 600_000, rerunMillis: 500 }),
          // the worker is frozen before it stores the outcome of this task
          payload(2, { millis: 200 })
        ])
        assert(long !== undefined && short !== undefined)
        yield* frozen.until((events) => events.some(({ _tag }) => _tag === "Reached"))
        const successor = yield* system.startWorker({ worker })
        yield* successor.until(
          (events) => settled(events, long.taskId, "Stored") && settled(events, short.taskId, "Stored")
        )
        yield* frozen.signal("SIGCONT")

        yield* frozen.until((events) => settled(events, short.taskId, "Lost"))
        yield* frozen.until((events) =>
          events.some((event) => event._tag === "Interrupted" && event.id === long.taskId)
        )
        yield* frozen.until((events) =>
          events.some((event) => event._tag === "Logged" && event.message.includes("Lost the lease"))
        )
        yield* successor.stop
        assert.isTrue(yield* successor.ended)
        const [later] = yield* system.enqueue([payload(3)])
        yield* frozen.until((events) => began(events, later?.taskId ?? ""))

        system.halted(frozen)
        const audit = yield* system.audit
        console.log(Audit.table(name, [["frozen", audit]]))
        Audit.verify(audit)
        assert.strictEqual(audit.reruns, 2)
        yield* system.drained
      }).pipe(Effect.provide(NodeServices.layer)),
    120_000
  )
}
