/** Tests with a hash slot of a Redis Cluster that moves to another node while tasks are enqueued and run. */
import { afterAll, assert, it } from "@effect/vitest"
import { Effect, Layer, Logger, type Scope } from "effect"
import * as RedisCluster from "../../src/redis/RedisCluster.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import { moveSlot } from "../redis/moveSlot.ts"
import { type Cluster, describeWithServers, startCluster } from "../redis/server.ts"
import { isFullRun } from "../support/fullRun.ts"
import * as Audit from "./audit.ts"
import { type FaultScenario, type Note, startScenario } from "./faultScenario.ts"
import * as Figures from "./figures.ts"
import type { StoreInstance } from "./ownStores.ts"
import { assertKept } from "./serverSuite.ts"

/** How a slot moves. */
interface Move {
  readonly name: string
  readonly shards: number
  readonly keysAtOnce: number
  /** How long it stops when half of the keys have moved. */
  readonly stopMillis: number
  /** Whether leases run out during the stop. */
  readonly lapses?: boolean
}

const moves: ReadonlyArray<Move> = [
  { name: "moves key by key, and stops for longer than a call", shards: 1, keysAtOnce: 1, stopMillis: 4_000 },
  ...(isFullRun
    ? [
        { name: "moves ten keys at a time", shards: 1, keysAtOnce: 10, stopMillis: 0 },
        { name: "moves key by key, and stops for a moment", shards: 3, keysAtOnce: 1, stopMillis: 500 },
        { name: "stops for longer than a lease", shards: 3, keysAtOnce: 5, stopMillis: 12_000, lapses: true }
      ]
    : [])
]

const ROUNDS = isFullRun ? 3 : 1

/** Tasks that have ended before a slot moves: most of its keys are their records. */
const ENDED = 200

const PREFIX = "moving"

const instanceOn = ({ rootNodes }: Cluster, shards: number): StoreInstance => ({
  locationFor: ([url = ""]) => ({ dialect: "redis", url, prefix: PREFIX }),
  open: ({ callTimeout }) =>
    Effect.flatMap(Layer.build(RedisCluster.layer({ rootNodes })), (client) =>
      Effect.provideContext(RedisStore.makeDrivers({ prefix: PREFIX, shards, callTimeout }), client)
    )
})

/** Moves the slots of the shards, one after the other, while tasks are enqueued and run. */
const runMoves = Effect.fnUntraced(function* (
  { keysAtOnce, lapses, shards, stopMillis }: Move,
  note: Note
): Effect.fn.Return<FaultScenario, unknown, Scope.Scope> {
  const cluster = yield* startCluster()
  const scenario = yield* startScenario({
    instance: instanceOn(cluster, shards),
    workers: [[], []],
    producer: [],
    observer: [],
    callTimeout: "2 seconds",
    lapses
  })
  yield* scenario.producer.enqueueAll(scenario.makePayloads(ENDED, 0))
  yield* scenario.untilIdle
  for (let round = 0; round < ROUNDS; round++) {
    yield* scenario.whileEnqueuing(
      Effect.gen(function* () {
        yield* scenario.untilWorking(6)
        const target = yield* moveSlot(cluster, `{${PREFIX}:${round % shards}}`, {
          keysAtOnce,
          halfway: Effect.sleep(stopMillis)
        })
        const since = performance.now()
        if (stopMillis > 0) {
          assert.include(String(yield* target.command("INFO", "errorstats")), "errorstat_TRYAGAIN")
        }
        yield* scenario.untilProgress(since, note)
      })
    )
    yield* scenario.untilIdle
  }
  return scenario
})

describeWithServers("a Redis Cluster of three nodes", () => {
  const figures = Figures.make()
  const audits: Array<readonly [string, Audit.Audit]> = []
  afterAll(() => {
    console.log(Audit.table("Redis Cluster", audits))
    Figures.print("Redis Cluster, since a slot has moved", figures)
  })

  for (const move of moves) {
    const { name, shards } = move
    const title = `the slot of ${shards === 1 ? "the store" : `each of ${shards} shards`} ${name}`
    it.live(
      `guarantee 9: keeps confirmed tasks while ${title}`,
      () =>
        Effect.gen(function* () {
          const scenario = yield* runMoves(move, (what, millis) => figures.note(title, what, millis))
          audits.push([title, yield* assertKept(scenario, move)])
          // warnings of calls that take too long are expected
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
      isFullRun ? 600_000 : 240_000
    )
  }
})
