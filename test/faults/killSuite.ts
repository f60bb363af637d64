/** Tests with workers and producers killed at every point between two steps. */
import { NodeServices } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import * as Audit from "./audit.ts"
import type { FaultyWorker, Deployment } from "./deployments.ts"
import { idOf } from "./dyingProducer.ts"
import { Job, payloads } from "./job.ts"
import { type ProducerKillPlan, producerPoints, type WorkerPoint, workerPoints } from "./killPoints.ts"
import * as System from "./system.ts"

/** Settings of the suite for one store. */
export interface Options {
  /** Long enough for a slow machine to renew it in time. */
  readonly leaseMillis: number
  /** Kill points of the short form. Default: all. */
  readonly points?: ReadonlyArray<WorkerPoint>
}

const CONCURRENCY = 8

/** Registers the tests, each in its own deployment. */
export const suite = (
  name: string,
  makeDeployment: Effect.Effect<Deployment, unknown, Scope.Scope>,
  { leaseMillis, points = workerPoints }: Options
): void => {
  const all: Array<readonly [string, Audit.Audit]> = []
  afterAll(() => {
    if (all.length > 0) console.log(Audit.table(name, all))
  })

  const worker = { lease: leaseMillis, concurrency: CONCURRENCY }

  const killed = Effect.fnUntraced(function* (system: System.System<FaultyWorker>, point: WorkerPoint) {
    const renews = point === "in a renewal"
    const stops = point === "before a run is released"
    const settled = renews ? 0 : 6
    yield* system.enqueue(renews ? payloads(12, 0.6 * leaseMillis) : payloads(32, stops ? 400 : 40))
    const victim = yield* system.startWorker({ worker, killPlan: { point, settled } })
    if (stops) {
      // a run that has just begun stays open for a while
      yield* victim.until(
        (events) =>
          events.at(-1)?._tag === "Began" && events.filter(({ _tag }) => _tag === "Settled").length >= settled
      )
      yield* victim.stop
    }
    yield* victim.died
    yield* system.startWorker({ worker })
    return yield* system.audit
  })

  const producerKilled = Effect.fnUntraced(function* (
    deployment: Deployment,
    system: System.System<FaultyWorker>,
    killPlan: ProducerKillPlan,
    unfused: boolean
  ) {
    const all = payloads(6, 0)
    const events = yield* deployment.produce({ payloads: all, unfused, ...killPlan })
    const accepted = events.flatMap((event) => (event._tag === "Accepted" ? [event.id] : []))
    assert.deepStrictEqual(accepted, all.slice(0, killPlan.accepted).map(idOf))
    // a restarted producer enqueues all of them again
    for (const payload of all) {
      const handle = yield* Effect.provideContext(Job.delay(payload, { id: idOf(payload) }), system.services)
      yield* system.accept(handle.taskId, payload)
    }
    yield* system.startWorker({ worker })
    return yield* system.audit
  })

  const test = (
    title: string,
    row: string,
    unfused: boolean,
    run: (
      deployment: Deployment,
      system: System.System<FaultyWorker>
    ) => Effect.Effect<Audit.Audit, unknown, Scope.Scope | NodeServices.NodeServices>
  ): void =>
    it.live(
      title,
      () =>
        Effect.gen(function* () {
          const deployment = yield* makeDeployment
          const system = yield* System.make(deployment, { unfused })
          const audit = yield* run(deployment, system)
          all.push([unfused ? `${row}, unfused` : row, audit])
          Audit.verify(audit)
          yield* system.drained
        }).pipe(Effect.provide(NodeServices.layer)),
      120_000
    )

  for (const unfused of isFullRun ? [true, false] : [false]) {
    describe(unfused ? "unfused" : "fused, where the store supports it", () => {
      for (const point of isFullRun ? workerPoints : points) {
        test(
          `guarantee 1: a worker killed ${point} loses no task and gives none two outcomes`,
          point,
          unfused,
          (_, system) => killed(system, point)
        )
      }
    })
  }

  for (const point of isFullRun ? producerPoints : (["after the record"] as const)) {
    test(
      `guarantee 1: a producer killed ${point} and restarted has each task run once`,
      `producer: ${point}`,
      true,
      (deployment, system) => producerKilled(deployment, system, { point, accepted: 3 }, true)
    )
  }
  if (!isFullRun) return
  test(
    "guarantee 1: a producer killed after a fused enqueue and restarted has each task run once",
    "producer: after the enqueue",
    false,
    (deployment, system) =>
      producerKilled(deployment, system, { point: "after the enqueue", accepted: 3 }, false)
  )
}
