/**
 * The points at which a worker or a producer is killed: drivers that pass everything on, tell of what was settled,
 * and do not come back from one call.
 */
import { Array as Arr, Effect } from "effect"
import type { Settled, Settlement } from "../../src/BackendDriver.ts"
import type { Batch } from "../../src/BrokerDriver.ts"
import type { Drivers } from "../support/storeLocations.ts"
import type { Emit } from "./workerEvents.ts"

/** Where a worker dies. */
export const workerPoints = [
  "after the claim",
  "in the handler",
  "before the result is stored",
  "after the result is stored",
  "with half of a batch settled",
  "between the halves of a retry",
  "in a renewal",
  "before a run is put back"
] as const
export type WorkerPoint = (typeof workerPoints)[number]

/** Where a producer dies. */
export const producerPoints = ["after the record", "after the message", "after all of it"] as const
export type ProducerPoint = (typeof producerPoints)[number]

/** Stops whoever calls: nothing that follows is done, unless it is thawed. */
export type Die = (point: WorkerPoint | ProducerPoint) => Effect.Effect<void>

/** How a process stops in the midst of what it does. */
export type Stop = "SIGKILL" | "SIGSTOP"

/** Kills the process, or freezes it, once. */
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

/** When a worker dies. */
export interface KillPlan {
  readonly point: WorkerPoint
  /** Not before so many of its runs are settled. */
  readonly settled: number
  /** Default: it is killed. */
  readonly stop?: Stop
}

/** Whether a settlement ends its task. */
const isFinal = ({ outcome: { _tag } }: Settlement): boolean => _tag === "Success" || _tag === "Failure"

/** When a producer dies. */
export interface ProducerKillPlan {
  readonly point: ProducerPoint
  /** How many of its tasks are accepted before. */
  readonly accepted: number
}

/** What has been written to a connection until now is sent. */
const flushSockets = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** The drivers of a worker that tells of what it settled, and dies at a point once so many of its runs are settled. */
export const forWorker = (
  { backend, broker }: Drivers,
  emit: Emit,
  killPlan?: KillPlan & { readonly die: Die }
): Drivers => {
  let settled = 0
  /** A retry is stored, and its message is not let go yet. */
  let retrying = false
  const dieAt = (point: WorkerPoint, here = true): Effect.Effect<void> =>
    here && killPlan !== undefined && killPlan.point === point && settled >= killPlan.settled
      ? killPlan.die(point)
      : Effect.void

  /** Around the settling of a batch, by one call or with what follows for the messages in the same. */
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
          "before a run is put back",
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
          yield* dieAt("between the halves of a retry", retries)
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
          ? // it is on its way, or has just been answered
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
        Effect.andThen(dieAt("between the halves of a retry", retrying), broker.release(releases))
    }
  }
}

/** The drivers of a producer that dies at a point, of the enqueue that follows so many. */
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
            fusion: { ...fusion, enqueue: (items) => after("after all of it", fusion.enqueue(items)) }
          }),
      create: (records) => after("after the record", backend.create(records)),
      markPublished: (ids) => after("after all of it", backend.markPublished(ids))
    },
    broker: { ...broker, publish: (messages) => after("after the message", broker.publish(messages)) }
  }
}

/** Drivers that do each step by itself. */
export const unfused = ({ backend: { fusion: _, ...backend }, broker }: Drivers): Drivers => ({
  backend,
  broker
})
