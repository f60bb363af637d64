/**
 * Kill points of workers and producers: drivers that delegate every call, emit what was settled, and never return
 * from one call.
 */
import { Array as Arr, Effect } from "effect"
import type { Settled, Settlement } from "../../src/BackendDriver.ts"
import type { Batch } from "../../src/BrokerDriver.ts"
import type { Drivers } from "../support/storeLocations.ts"
import type { Emit } from "./workerEvents.ts"

/** Points at which a worker dies. */
export const workerPoints = [
  "after the claim",
  "in the handler",
  "before the result is stored",
  "after the result is stored",
  "with half of a batch settled",
  "between the steps of a retry",
  "in a renewal",
  "before a run is released"
] as const
export type WorkerPoint = (typeof workerPoints)[number]

/** Points at which a producer dies. */
export const producerPoints = ["after the record", "after the message", "after the enqueue"] as const
export type ProducerPoint = (typeof producerPoints)[number]

/** Stops the caller: nothing that follows runs, unless the process is thawed. */
export type Die = (point: WorkerPoint | ProducerPoint) => Effect.Effect<void>

/** The signal that stops a process. */
export type Stop = "SIGKILL" | "SIGSTOP"

/** Kills or freezes this process, once. */
export const halting = (emit: Emit, stop: Stop = "SIGKILL"): Die => {
  let halted = false
  return (point) =>
    Effect.sync(() => {
      if (halted) return
      halted = true
      emit({ _tag: "Reached", point })
      process.kill(process.pid, stop)
    })
}

/** When and how a worker dies. */
export interface KillPlan {
  readonly point: WorkerPoint
  /** The worker dies only after that many settled runs. */
  readonly settled: number
  /** Default `SIGKILL`. */
  readonly stop?: Stop
}

/** Whether a settlement ends its task. */
const isFinal = ({ outcome: { _tag } }: Settlement): boolean => _tag === "Success" || _tag === "Failure"

/** When a producer dies. */
export interface ProducerKillPlan {
  readonly point: ProducerPoint
  /** How many tasks are accepted before. */
  readonly accepted: number
}

/** Waits until pending writes to connections are sent. */
const flushSockets = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** Wraps the drivers of a worker: emits settlements, and dies at a point after that many settled runs. */
export const forWorker = (
  { backend, broker }: Drivers,
  emit: Emit,
  killPlan?: KillPlan & { readonly die: Die }
): Drivers => {
  let settled = 0
  /** A retry is stored and its message is not released yet. */
  let retrying = false
  const dieAt = (point: WorkerPoint, here = true): Effect.Effect<void> =>
    here && killPlan !== undefined && killPlan.point === point && settled >= killPlan.settled
      ? killPlan.die(point)
      : Effect.void

  /** Wraps the settlement of a batch, fused with its messages or alone. */
  const settling =
    <A, E>(
      settle: (batch: Batch<A>) => Effect.Effect<ReadonlyArray<Settled>, E>,
      settlementOf: (item: A) => Settlement,
      fused: boolean
    ) =>
    (batch: Batch<A>): Effect.Effect<ReadonlyArray<Settled>, E> =>
      Effect.gen(function* () {
        const settlements = Arr.map(batch, settlementOf)
        yield* dieAt("before the result is stored", settlements.some(isFinal))
        yield* dieAt(
          "before a run is released",
          settlements.some(({ outcome }) => outcome._tag === "Release")
        )
        const half = batch.slice(0, Math.floor(batch.length / 2))
        if (killPlan?.point === "with half of a batch settled" && Arr.isReadonlyArrayNonEmpty(half)) {
          if (settled >= killPlan.settled) emitAll(yield* settle(half), settlements)
          yield* dieAt(killPlan.point)
        }
        const answers = yield* settle(batch)
        emitAll(answers, settlements)
        const retries = settlements.some(({ outcome }) => outcome._tag === "Retry")
        if (fused) {
          yield* dieAt("after the result is stored", settlements.some(isFinal))
          yield* dieAt("between the steps of a retry", retries)
        }
        retrying ||= retries
        settled += batch.length
        return answers
      })
  const emitAll = (answers: ReadonlyArray<Settled>, settlements: ReadonlyArray<Settlement>): void => {
    for (const [i, answer] of answers.entries()) {
      const { id, outcome, token } = settlements[i]!
      const exit = "exit" in outcome ? outcome.exit : null
      emit({ _tag: "Settled", id, token, outcome: outcome._tag, exit, answer })
    }
  }
  const { claim, fusion, settle } = { ...broker, ...backend }
  const claimed = <A, E>(claiming: Effect.Effect<ReadonlyArray<A>, E>) =>
    Effect.tap(claiming, (some) => dieAt("after the claim", some.length > 0))

  return {
    backend: {
      ...backend,
      ...(fusion === undefined
        ? {}
        : {
            fusion: {
              ...fusion,
              ...(fusion.claim === undefined ? {} : { claim: (request) => claimed(fusion.claim!(request)) }),
              settle: settling(fusion.settle, ({ settlement }) => settlement, true)
            }
          }),
      settle: settling(settle, (settlement) => settlement, false),
      renew: (batch) =>
        killPlan?.point === "in a renewal"
          ? // the call is in flight or has just been answered
            Effect.forkDetach(backend.renew(batch)).pipe(
              Effect.andThen(flushSockets),
              Effect.andThen(killPlan.die(killPlan.point)),
              Effect.andThen(Effect.never)
            )
          : backend.renew(batch)
    },
    broker: {
      ...broker,
      claim: (request) => claimed(claim(request)),
      ack: (handles) => Effect.andThen(dieAt("after the result is stored"), broker.ack(handles)),
      release: (releases) =>
        Effect.andThen(dieAt("between the steps of a retry", retrying), broker.release(releases))
    }
  }
}

/** Wraps the drivers of a producer that dies at a point of the enqueue after that many. */
export const forProducer = (
  { backend, broker }: Drivers,
  { accepted, die, point }: ProducerKillPlan & { readonly die: Die }
): Drivers => {
  let passed = 0
  const after = <A, E>(here: ProducerPoint, effect: Effect.Effect<A, E>) =>
    here === point ? Effect.tap(effect, () => (passed++ === accepted ? die(point) : Effect.void)) : effect
  const { fusion } = backend
  return {
    backend: {
      ...backend,
      ...(fusion === undefined
        ? {}
        : {
            fusion: { ...fusion, enqueue: (items) => after("after the enqueue", fusion.enqueue(items)) }
          }),
      create: (records) => after("after the record", backend.create(records)),
      markPublished: (records) => after("after the enqueue", backend.markPublished(records))
    },
    broker: { ...broker, publish: (messages) => after("after the message", broker.publish(messages)) }
  }
}

/** Returns the drivers without fused operations. */
export const unfused = ({ backend: { fusion: _, ...backend }, broker }: Drivers): Drivers => ({
  backend,
  broker
})
