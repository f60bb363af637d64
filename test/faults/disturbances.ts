/** Random faults of a running system. */
import { Effect, Random } from "effect"
import type { Network } from "../support/network.ts"
import type { OwnServer } from "../support/ownServers.ts"
import { workerPoints } from "./killPoints.ts"
import type { SupervisedWorker } from "./supervisedWorker.ts"

/** What the faults may strike. */
export interface Targets {
  readonly leaseMillis: number
  /** Workers that may be killed. */
  readonly workers: ReadonlyArray<SupervisedWorker>
  readonly networks: ReadonlyArray<Network>
  readonly servers: ReadonlyArray<OwnServer>
}

/** A fault; returns its description. */
type Disturbance = Effect.Effect<string, unknown>

const between = (min: number, max: number) => Random.nextIntBetween(min, max)

/** A fault that lasts for a random time. */
const temporary = (
  name: string,
  spawn: Effect.Effect<unknown, unknown>,
  end: Effect.Effect<unknown, unknown>,
  min: number,
  max: number
): Disturbance =>
  Effect.flatMap(between(min, max), (millis) =>
    spawn.pipe(
      Effect.andThen(Effect.sleep(millis)),
      Effect.ensuring(Effect.orDie(end)),
      Effect.as(`${name} for ${millis} ms`)
    )
  )

const workerDisturbances = ({ leaseMillis, workers }: Targets): ReadonlyArray<Disturbance> =>
  workers.flatMap(({ replaceWith, freeze, kill, replace, thaw }, i) => [
    Effect.as(kill, `worker ${i} is killed`),
    Effect.as(replace, `worker ${i} is replaced`),
    Effect.gen(function* () {
      const point = workerPoints[yield* between(0, workerPoints.length - 1)]!
      yield* replaceWith({ point, settled: yield* between(0, 20) })
      return `worker ${i} is to die ${point}`
    }),
    temporary(`worker ${i} is frozen`, freeze, thaw, leaseMillis / 2, 2 * leaseMillis)
  ])

const networkDisturbances = ({ networks }: Targets): ReadonlyArray<Disturbance> =>
  networks.flatMap(({ cut, drip, halfOpen, heal, latency, refuse, silence, storm }, i) => [
    Effect.as(cut(2), `network ${i} is cut`),
    temporary(`network ${i} refuses`, refuse, heal, 500, 3_000),
    temporary(`network ${i} is half open`, halfOpen, heal, 500, 8_000),
    temporary(`network ${i} is silent`, silence, cut(), 500, 4_000),
    temporary(`network ${i} is slow`, latency(200), heal, 500, 3_000),
    temporary(`network ${i} drips`, drip(200), heal, 500, 3_000),
    temporary(`network ${i} is stormy`, storm, heal, 500, 3_000)
  ])

const serverDisturbances = ({ servers }: Targets): ReadonlyArray<Disturbance> =>
  servers.flatMap(({ freeze, kill, start, stop, thaw }, i) => [
    temporary(`server ${i} is killed and down`, kill, start, 100, 3_000),
    temporary(`server ${i} is stopped and down`, stop, start, 100, 3_000),
    temporary(`server ${i} is frozen`, freeze, thaw, 200, 5_000)
  ])

/** Causes one fault after the other until it is interrupted, and logs each. */
export const disturb = (targets: Targets, emit: (what: string) => void): Effect.Effect<never, unknown> => {
  const kinds = [
    workerDisturbances(targets),
    networkDisturbances(targets),
    serverDisturbances(targets)
  ].filter((kind) => kind.length > 0)
  return Effect.gen(function* () {
    const kind = kinds[yield* between(0, kinds.length - 1)]!
    const one = kind[yield* between(0, kind.length - 1)]!
    yield* Effect.sleep(yield* between(200, 2_500))
    emit(yield* one)
  }).pipe(Effect.forever)
}
