/** What may happen to a running system, at random. */
import { Effect, Random } from "effect"
import type { Network } from "../support/network.ts"
import type { OwnServer } from "../support/ownServers.ts"
import { workerPoints } from "./killPoints.ts"
import type { Position } from "./supervisedWorker.ts"

/** What there is to disturb. */
export interface World {
  readonly leaseMillis: number
  /** Workers that may be killed. */
  readonly positions: ReadonlyArray<Position>
  readonly networks: ReadonlyArray<Network>
  readonly servers: ReadonlyArray<OwnServer>
}

/** What happened, in words. */
type Happened = Effect.Effect<string, unknown>

const between = (min: number, max: number) => Random.nextIntBetween(min, max)

/** Something goes on for a while. */
const passing = (
  name: string,
  begin: Effect.Effect<unknown, unknown>,
  end: Effect.Effect<unknown, unknown>,
  min: number,
  max: number
): Happened =>
  Effect.flatMap(between(min, max), (millis) =>
    begin.pipe(
      Effect.andThen(Effect.sleep(millis)),
      Effect.ensuring(Effect.orDie(end)),
      Effect.as(`${name} for ${millis} ms`)
    )
  )

const toWorkers = ({ leaseMillis, positions }: World): ReadonlyArray<Happened> =>
  positions.flatMap(({ doom, freeze, kill, replace, thaw }, i) => [
    Effect.as(kill, `worker ${i} is killed`),
    Effect.as(replace, `worker ${i} is replaced`),
    Effect.gen(function* () {
      const point = workerPoints[yield* between(0, workerPoints.length - 1)]!
      yield* doom({ point, settled: yield* between(0, 20) })
      return `worker ${i} is to die ${point}`
    }),
    passing(`worker ${i} is frozen`, freeze, thaw, leaseMillis / 2, 2 * leaseMillis)
  ])

const toNetworks = ({ networks }: World): ReadonlyArray<Happened> =>
  networks.flatMap(({ cut, drip, halfOpen, heal, latency, refuse, silence, storm }, i) => [
    Effect.as(cut(2), `network ${i} is cut`),
    passing(`network ${i} refuses`, refuse, heal, 500, 3_000),
    passing(`network ${i} is half open`, halfOpen, heal, 500, 8_000),
    passing(`network ${i} is silent`, silence, cut(), 500, 4_000),
    passing(`network ${i} is slow`, latency(200), heal, 500, 3_000),
    passing(`network ${i} drips`, drip(200), heal, 500, 3_000),
    passing(`network ${i} is stormy`, storm, heal, 500, 3_000)
  ])

const toServers = ({ servers }: World): ReadonlyArray<Happened> =>
  servers.flatMap(({ freeze, kill, start, stop, thaw }, i) => [
    passing(`server ${i} is killed, and away`, kill, start, 100, 3_000),
    passing(`server ${i} is stopped, and away`, stop, start, 100, 3_000),
    passing(`server ${i} is frozen`, freeze, thaw, 200, 5_000)
  ])

/** Lets one thing after the other happen, until it is interrupted; each is told. */
export const happen = (world: World, tell: (what: string) => void): Effect.Effect<never, unknown> => {
  const kinds = [toWorkers(world), toNetworks(world), toServers(world)].filter((kind) => kind.length > 0)
  return Effect.gen(function* () {
    const kind = kinds[yield* between(0, kinds.length - 1)]!
    const one = kind[yield* between(0, kind.length - 1)]!
    yield* Effect.sleep(yield* between(200, 2_500))
    tell(yield* one)
  }).pipe(Effect.forever)
}
