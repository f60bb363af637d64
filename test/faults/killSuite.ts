/** Workers and producers that are killed at every point where something is half done. */
import { NodeServices } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { full } from "../support/fullRun.ts"
import * as Accounts from "./audit.ts"
import type { FaultyWorker, Site } from "./deployments.ts"
import { idOf } from "./dyingProducer.ts"
import { Job, payloads } from "./job.ts"
import { type FatalEnqueue, producerPoints, type WorkerPoint, workerPoints } from "./killPoints.ts"
import * as System from "./system.ts"

/** What a store is asked for. */
export interface Options {
  /** Long enough for a slow machine to renew it in time. */
  readonly leaseMillis: number
  /** Those of the short form. Default: all. */
  readonly points?: ReadonlyArray<WorkerPoint>
}

const CONCURRENCY = 8

/** Registers the tests: each in a site of its own. */
export const suite = (
  name: string,
  makeSite: Effect.Effect<Site, unknown, Scope.Scope>,
  { leaseMillis, points = workerPoints }: Options
): void => {
  const all: Array<readonly [string, Accounts.Accounts]> = []
  afterAll(() => {
    if (all.length > 0) console.log(Accounts.page(name, all))
  })

  const worker = { lease: leaseMillis, concurrency: CONCURRENCY }

  const killed = Effect.fnUntraced(function* (system: System.System<FaultyWorker>, point: WorkerPoint) {
    const renews = point === "in a renewal"
    const stops = point === "before a run is put back"
    const settled = renews ? 0 : 6
    yield* system.enqueue(renews ? payloads(12, 0.6 * leaseMillis) : payloads(32, stops ? 400 : 40))
    const victim = yield* system.startWorker({ worker, fatal: { point, settled } })
    if (stops) {
      // a run that has just begun is in hand for a while
      yield* victim.until(
        (told) =>
          told.at(-1)?._tag === "Began" && told.filter(({ _tag }) => _tag === "Settled").length >= settled
      )
      yield* victim.stop
    }
    yield* victim.died
    yield* system.startWorker({ worker })
    return yield* system.accounts
  })

  const producerKilled = Effect.fnUntraced(function* (
    site: Site,
    system: System.System<FaultyWorker>,
    fatal: FatalEnqueue,
    unfused: boolean
  ) {
    const all = payloads(6, 0)
    const told = yield* site.produce({ payloads: all, unfused, ...fatal })
    const accepted = told.flatMap((entry) => (entry._tag === "Accepted" ? [entry.id] : []))
    assert.deepStrictEqual(accepted, all.slice(0, fatal.accepted).map(idOf))
    // whoever starts it again enqueues all of it again
    for (const payload of all) {
      const handle = yield* Effect.provideContext(Job.delay(payload, { id: idOf(payload) }), system.services)
      yield* system.accept(handle.taskId, payload)
    }
    yield* system.startWorker({ worker })
    return yield* system.accounts
  })

  const test = (
    title: string,
    row: string,
    unfused: boolean,
    run: (
      site: Site,
      system: System.System<FaultyWorker>
    ) => Effect.Effect<Accounts.Accounts, unknown, Scope.Scope | NodeServices.NodeServices>
  ): void =>
    it.live(
      title,
      () =>
        Effect.gen(function* () {
          const site = yield* makeSite
          const system = yield* System.make(site, { unfused })
          const accounts = yield* run(site, system)
          all.push([unfused ? `${row}, step by step` : row, accounts])
          Accounts.verify(accounts)
          yield* system.drained
        }).pipe(Effect.provide(NodeServices.layer)),
      120_000
    )

  for (const unfused of full ? [true, false] : [false]) {
    describe(unfused ? "step by step" : "with steps fused, where the store has them so", () => {
      for (const point of full ? workerPoints : points) {
        test(
          `a worker that is killed ${point} loses nothing, and nothing has two outcomes`,
          point,
          unfused,
          (_, system) => killed(system, point)
        )
      }
    })
  }

  for (const point of full ? producerPoints : (["after the record"] as const)) {
    test(
      `a producer that is killed ${point}, and begins anew, has each task run once`,
      `producer: ${point}`,
      true,
      (site, system) => producerKilled(site, system, { point, accepted: 3 }, true)
    )
  }
  if (!full) return
  test(
    "a producer that is killed after an enqueue in one step, and begins anew, has each task run once",
    "producer: after all of it",
    false,
    (site, system) => producerKilled(site, system, { point: "after all of it", accepted: 3 }, false)
  )
}
