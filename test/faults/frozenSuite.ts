/** Workers that are frozen for longer than their lease, and go on then. */
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as Accounts from "./audit.ts"
import type { Site, WorkerProcess } from "./deployments.ts"
import { payload } from "./job.ts"
import * as System from "./system.ts"
import type { Entry } from "./workerEvents.ts"

const began = (told: ReadonlyArray<Entry>, id: string): boolean =>
  told.some((entry) => entry._tag === "Began" && entry.id === id)

const settled = (told: ReadonlyArray<Entry>, id: string, answer: "Stored" | "Lost"): boolean =>
  told.some((entry) => entry._tag === "Settled" && entry.id === id && entry.answer === answer)

/** Registers the test. */
export const suite = (
  name: string,
  makeSite: Effect.Effect<Site<WorkerProcess>, unknown, Scope.Scope>,
  leaseMillis: number
): void => {
  const worker = { lease: leaseMillis, concurrency: 2 }

  it.live(
    "a worker that was frozen while its runs were taken over can write nothing, interrupts them, says so, and works on",
    () =>
      Effect.gen(function* () {
        const system = yield* System.make(yield* makeSite)
        const freezes = { point: "before the result is stored", settled: 0, stop: "SIGSTOP" } as const
        const frozen = yield* system.startWorker({ worker, fatal: freezes })
        const [long, short] = yield* system.enqueue([
          payload(1, { millis: 600_000, againMillis: 500 }),
          // it is frozen when it is about to store the outcome of this one
          payload(2, { millis: 200 })
        ])
        assert(long !== undefined && short !== undefined)
        yield* frozen.until((told) => told.some(({ _tag }) => _tag === "Reached"))
        const successor = yield* system.startWorker({ worker })
        yield* successor.until(
          (told) => settled(told, long.taskId, "Stored") && settled(told, short.taskId, "Stored")
        )
        yield* frozen.signal("SIGCONT")

        yield* frozen.until((told) => settled(told, short.taskId, "Lost"))
        yield* frozen.until((told) =>
          told.some((entry) => entry._tag === "Interrupted" && entry.id === long.taskId)
        )
        yield* frozen.until((told) =>
          told.some((entry) => entry._tag === "Warned" && entry.message.includes("lease was lost"))
        )
        yield* successor.stop
        assert.isTrue(yield* successor.ended)
        const [later] = yield* system.enqueue([payload(3)])
        yield* frozen.until((told) => began(told, later?.taskId ?? ""))

        system.halted(frozen)
        const accounts = yield* system.accounts
        console.log(Accounts.page(name, [["frozen", accounts]]))
        Accounts.verify(accounts)
        assert.strictEqual(accounts.ranAgain, 2)
        yield* system.drained
      }).pipe(Effect.provide(NodeServices.layer)),
    120_000
  )
}
