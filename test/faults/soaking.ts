/** Rounds of work under random faults, an audit of each, and samples of the processes that live through them. */
import { type Duration, Effect, Fiber, Schedule } from "effect"
import { makeNetwork } from "../support/network.ts"
import { program, start } from "../support/processes.ts"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import * as Audit from "./audit.ts"
import * as Disturbances from "./disturbances.ts"
import type { Sample } from "./growth.ts"
import { payloads } from "./job.ts"
import type { OwnStore, RunningStore } from "./ownStores.ts"
import { makeProducer, unresolved } from "./producer.ts"
import { sample } from "./sampling.ts"
import * as SupervisedWorker from "./supervisedWorker.ts"
import { WorkerEvent } from "./workerEvents.ts"
import type { Options } from "./workerProcess.ts"

const LEASE = 3_000
/** Duration of a round's faults. */
const ROUND: Duration.Input = "25 seconds"
/** Bound for a round's tasks to end once everything is healed. */
const BOUND: Duration.Input = "2 minutes"
/** Workers that may be killed. */
const WORKERS = 2
/** Tasks that are enqueued at once. */
const BATCH = 10

/** The result of a soak. */
export interface SoakResult {
  readonly rounds: ReadonlyArray<Audit.Audit>
  readonly samples: ReadonlyMap<string, ReadonlyArray<Sample>>
}

const isSample = (event: WorkerEvent): event is Extract<WorkerEvent, { readonly _tag: "Sampled" }> =>
  event._tag === "Sampled"

/** Makes routes to all servers. */
const makeRoutes = ({ networks, servers }: RunningStore) =>
  Effect.forEach(servers, ({ url }, i) => makeNetwork(url, networks[i]))

/** Runs rounds for that long and logs every fault. */
export const run = Effect.fnUntraced(function* (
  store: OwnStore,
  millis: number,
  emit: (what: string) => void
) {
  const running = yield* store.start
  const location = yield* running.newInstance
  const worker = { lease: LEASE, concurrency: 8, drainTimeout: "2 seconds" } as const
  const startWorker = Effect.fnUntraced(function* (urls: ReadonlyArray<string>, options: Options) {
    const args = [StoreLocations.encode(location.locationFor(urls)), JSON.stringify({ worker, ...options })]
    return yield* start(program("../faults/workerProcess.ts", args), WorkerEvent)
  })

  const routes = yield* Effect.forEach(Array.from({ length: WORKERS + 2 }), () => makeRoutes(running))
  const [producerUrls, longLivedUrls, ...workerUrls] = routes.map((route) => route.map(({ url }) => url))
  const longLived = yield* startWorker(longLivedUrls ?? [], { sampleMillis: 2_000 })
  const workers = yield* Effect.forEach(workerUrls, (urls) =>
    SupervisedWorker.make((killPlan) => startWorker(urls, { killPlan }))
  )
  const drivers = yield* StoreLocations.drivers(location.locationFor(producerUrls ?? []))
  const services = yield* StoreLocations.services(drivers)
  const directDrivers = yield* StoreLocations.drivers(
    location.locationFor(running.servers.map(({ url }) => url))
  )
  const targets = { leaseMillis: LEASE, workers, networks: routes.flat(), servers: running.servers }
  yield* longLived.until((events) => events.some(({ _tag }) => _tag === "Ready"))
  yield* running.settle

  let next = 0
  const round = Effect.gen(function* () {
    const producer = yield* makeProducer(services)
    const enqueuing = Effect.suspend(() => {
      next += BATCH
      return producer.enqueueAll(payloads(BATCH, 100, next - BATCH))
    }).pipe(Effect.andThen(Effect.sleep("200 millis")), Effect.forever)
    const disturbing = yield* Effect.forkChild(Disturbances.disturb(targets, emit))
    const working = yield* Effect.forkChild(enqueuing)
    yield* Effect.raceFirst(
      Effect.sleep(ROUND),
      // neither ends by itself
      Effect.raceFirst(Fiber.join(disturbing), Fiber.join(working))
    )
    yield* Fiber.interrupt(disturbing)
    yield* Effect.forEach(workers, ({ ensureRunning }) => ensureRunning)
    yield* Fiber.interrupt(working)

    const hanging = new Set(yield* unresolved(() => producer.tasks, BOUND))
    const records = yield* Effect.forEach(producer.tasks, ({ id }) =>
      Effect.map(directDrivers.backend.read([id]), ([record]) => record).pipe(
        Effect.retry({ schedule: Schedule.spaced("200 millis"), times: 50 })
      )
    )
    const left = Effect.map(directDrivers.broker.counts(["default"]), ([counts]) => counts!)
    // the client may have to reconnect to a server that was just killed
    const done = Effect.map(left, ({ claimed, delayed, ready }) => claimed + delayed + ready === 0)
    yield* Effect.timeout(eventually(Effect.retry(done, Schedule.spaced("200 millis"))), BOUND)
    const logs = workers.flatMap(({ takeLogs }) => takeLogs())
    const lastSample = longLived.events.findLast(isSample)
    const audit = Audit.of(
      producer.tasks.map(({ id, outcome, payload }, i) => ({
        id,
        payload,
        outcomes: [hanging.has(id) ? undefined : outcome],
        record: records[i]
      })),
      [...logs, { events: [...longLived.events], halted: false }]
    )
    longLived.clear()
    return { audit, lastSample }
  }).pipe(Effect.scoped)

  const rounds: Array<Audit.Audit> = []
  const workerSamples: Array<Sample> = []
  const ownSamples: Array<Sample> = []
  const end = performance.now() + millis
  while (performance.now() < end) {
    const { audit, lastSample } = yield* round
    rounds.push(audit)
    emit(JSON.stringify(audit))
    if (lastSample !== undefined) workerSamples.push(lastSample)
    ownSamples.push(yield* sample)
  }
  return {
    rounds,
    samples: new Map([
      ["worker", workerSamples],
      ["producer", ownSamples]
    ])
  }
})
