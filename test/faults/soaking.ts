/** Rounds of work while anything breaks, with accounts of each, and samples of those who live through them. */
import { type Duration, Effect, Fiber, Schedule } from "effect"
import { makeNetwork } from "../support/network.ts"
import { program, start } from "../support/processes.ts"
import { eventually } from "../support/storeFixture.ts"
import * as Places from "../support/storeLocations.ts"
import * as Accounts from "./audit.ts"
import * as Disturbances from "./disturbances.ts"
import type { Sample } from "./growth.ts"
import { payloads } from "./job.ts"
import type { OwnStore, Running } from "./ownStores.ts"
import { makeProducer, untold } from "./producer.ts"
import { sample } from "./sampling.ts"
import * as Position from "./supervisedWorker.ts"
import { Entry } from "./workerEvents.ts"
import type { Options } from "./workerProcess.ts"

const LEASE = 3_000
/** For how long tasks are enqueued and disturbed in a round. */
const ROUND: Duration.Input = "25 seconds"
/** Within which all of it has to end, once nothing is wrong any more. */
const BOUND: Duration.Input = "2 minutes"
/** Workers that may be killed. */
const POSITIONS = 2
/** Tasks that are enqueued at a time. */
const PORTION = 10

/** What came of it. */
export interface Soaked {
  readonly rounds: ReadonlyArray<Accounts.Accounts>
  readonly samples: ReadonlyMap<string, ReadonlyArray<Sample>>
}

const isSample = (entry: Entry): entry is Extract<Entry, { readonly _tag: "Sampled" }> =>
  entry._tag === "Sampled"

/** A way of one's own to all servers. */
const makeWay = ({ networks, servers }: Running) =>
  Effect.forEach(servers, ({ url }, i) => makeNetwork(url, networks[i]))

/** Goes on for that long; each thing that happens is told. */
export const run = Effect.fnUntraced(function* (
  store: OwnStore,
  millis: number,
  tell: (what: string) => void
) {
  const running = yield* store.start
  const place = yield* running.place
  const worker = { lease: LEASE, concurrency: 8, drainTimeout: "2 seconds" } as const
  const startWorker = Effect.fnUntraced(function* (urls: ReadonlyArray<string>, options: Options) {
    const args = [Places.encode(place.at(urls)), JSON.stringify({ worker, ...options })]
    return yield* start(program("./workerProcess.ts", args), Entry)
  })

  const ways = yield* Effect.forEach(Array.from({ length: POSITIONS + 2 }), () => makeWay(running))
  const [ofProducer, ofSteady, ...ofPositions] = ways.map((way) => way.map(({ url }) => url))
  const steady = yield* startWorker(ofSteady ?? [], { sampleMillis: 2_000 })
  const positions = yield* Effect.forEach(ofPositions, (urls) =>
    Position.make((fatal) => startWorker(urls, { fatal }))
  )
  const drivers = yield* Places.drivers(place.at(ofProducer ?? []))
  const services = yield* Places.services(drivers)
  const untouched = yield* Places.drivers(place.at(running.servers.map(({ url }) => url)))
  const world = { leaseMillis: LEASE, positions, networks: ways.flat(), servers: running.servers }
  yield* steady.until((told) => told.some(({ _tag }) => _tag === "Ready"))
  yield* running.settle

  let next = 0
  const round = Effect.gen(function* () {
    const producer = yield* makeProducer(services)
    const enqueuing = Effect.suspend(() => {
      next += PORTION
      return producer.enqueueAll(payloads(PORTION, 100, next - PORTION))
    }).pipe(Effect.andThen(Effect.sleep("200 millis")), Effect.forever)
    const disturbing = yield* Effect.forkChild(Disturbances.happen(world, tell))
    const working = yield* Effect.forkChild(enqueuing)
    yield* Effect.raceFirst(
      Effect.sleep(ROUND),
      // neither ends by itself
      Effect.raceFirst(Fiber.join(disturbing), Fiber.join(working))
    )
    yield* Fiber.interrupt(disturbing)
    yield* Effect.forEach(positions, ({ mend }) => mend)
    yield* Fiber.interrupt(working)

    const hanging = new Set(yield* untold(() => producer.tasks, BOUND))
    const records = yield* Effect.forEach(producer.tasks, ({ id }) =>
      Effect.map(untouched.backend.read([id]), ([record]) => record).pipe(
        Effect.retry({ schedule: Schedule.spaced("200 millis"), times: 50 })
      )
    )
    const left = Effect.map(untouched.broker.counts(["default"]), ([counts]) => counts!)
    // it may have to connect again to a server that was killed a moment ago
    const done = Effect.map(left, ({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
    yield* Effect.timeout(eventually(Effect.retry(done, Schedule.spaced("200 millis"))), BOUND)
    const reports = positions.flatMap(({ report }) => report())
    const held = steady.told.findLast(isSample)
    const accounts = Accounts.of(
      producer.tasks.map(({ id, outcome, payload }, i) => ({
        id,
        payload,
        got: [hanging.has(id) ? undefined : outcome],
        record: records[i]
      })),
      [...reports, { entries: [...steady.told], halted: false }]
    )
    steady.clear()
    return { accounts, held }
  }).pipe(Effect.scoped)

  const rounds: Array<Accounts.Accounts> = []
  const ofWorker: Array<Sample> = []
  const ofThis: Array<Sample> = []
  const end = performance.now() + millis
  while (performance.now() < end) {
    const { accounts, held } = yield* round
    rounds.push(accounts)
    tell(JSON.stringify(accounts))
    if (held !== undefined) ofWorker.push(held)
    ofThis.push(yield* sample)
  }
  return {
    rounds,
    samples: new Map([
      ["worker", ofWorker],
      ["producer", ofThis]
    ])
  }
})
