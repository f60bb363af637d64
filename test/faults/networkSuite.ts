/** Tests with network faults on the routes of workers, of producers and of both. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Logger } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import { makeNetwork, type Network } from "../support/network.ts"
import * as Audit from "./audit.ts"
import { startScenario, type Note } from "./faultScenario.ts"
import * as Figures from "./figures.ts"
import type { OwnStore, RunningStore } from "./ownStores.ts"

/** A fault of a route, and its duration. */
interface Fault {
  readonly name: string
  readonly begin: (network: Network) => Effect.Effect<void>
  readonly end: (network: Network) => Effect.Effect<void, unknown>
  readonly millis: number
  /** Whether connected clients have to reconnect. */
  readonly cuts: boolean
  /** Whether leases run out during the fault. */
  readonly lapses?: boolean
  /** The routes it is applied to. Default: each of them. */
  readonly targets?: ReadonlyArray<Target>
}

const targets = ["of one worker", "of the workers", "of the producer", "of all"] as const
type Target = (typeof targets)[number]

const heal = (network: Network) => network.heal

const faults = {
  cut: {
    name: "is cut once",
    begin: ({ cut }) => cut(),
    end: heal,
    millis: 0,
    cuts: true
  },
  unready: {
    name: "is cut, and the next connections as soon as they are ready",
    begin: ({ cut }) => cut(4),
    end: heal,
    millis: 500,
    cuts: true
  },
  refused: {
    name: "refuses connections",
    begin: ({ refuse }) => refuse,
    end: heal,
    millis: 2_500,
    cuts: true
  },
  halfOpen: {
    name: "is half open",
    begin: ({ halfOpen }) => halfOpen,
    end: heal,
    millis: 3_000,
    cuts: false
  },
  halfOpenLong: {
    name: "is half open for longer than a lease and a call",
    begin: ({ halfOpen }) => halfOpen,
    end: heal,
    millis: 12_000,
    cuts: false,
    lapses: true,
    targets: ["of one worker", "of all"]
  },
  silent: {
    name: "mutes open connections until they are cut",
    begin: ({ silence }) => silence,
    end: ({ cut }) => cut(),
    millis: 4_000,
    cuts: true
  },
  slow: {
    name: "is slow",
    begin: ({ latency }) => latency(250),
    end: heal,
    millis: 4_000,
    cuts: false,
    targets: ["of one worker", "of all"]
  },
  dripping: {
    name: "passes few bytes at a time",
    begin: ({ drip }) => drip(64),
    end: heal,
    millis: 4_000,
    cuts: false,
    targets: ["of one worker", "of all"]
  },
  stormy: {
    name: "is cut repeatedly",
    begin: ({ storm }) => storm,
    end: heal,
    millis: 4_000,
    cuts: true
  }
} as const satisfies Record<string, Fault>

/** The cases of the short form. */
const short: ReadonlyArray<readonly [Fault, Target]> = [
  [faults.stormy, "of all"],
  [faults.halfOpen, "of the workers"]
]

/** Shorter than the faults in the short form; the store's default in the full form. */
const CALL_TIMEOUT = isFullRun ? undefined : "2 seconds"

/** Makes routes to all servers of a store. */
const makeRoutes = Effect.fnUntraced(function* ({ networks, servers }: RunningStore) {
  const routes = yield* Effect.forEach(servers, ({ url }, i) => makeNetwork(url, networks[i]))
  return { urls: routes.map(({ url }) => url), routes }
})

/** Applies a fault during work and while idle, and audits all tasks. */
const disturb = Effect.fnUntraced(function* (
  running: RunningStore,
  fault: Fault,
  target: Target,
  note: Note
) {
  const [first, second, third] = yield* Effect.all([
    makeRoutes(running),
    makeRoutes(running),
    makeRoutes(running)
  ])
  const disturbed = {
    "of one worker": first.routes,
    "of the workers": [...first.routes, ...second.routes],
    "of the producer": third.routes,
    "of all": [...first.routes, ...second.routes, ...third.routes]
  }[target]
  const {
    audit,
    untilProgress,
    overlappingRuns,
    makePayloads,
    observer,
    producer,
    untilIdle,
    untilWorking,
    untilResolved,
    whileEnqueuing
  } = yield* startScenario({
    instance: yield* running.newInstance,
    workers: [first.urls, second.urls],
    producer: third.urls,
    observer: running.servers.map(({ url }) => url),
    callTimeout: CALL_TIMEOUT,
    lapses: fault.lapses
  })
  const all = (change: (network: Network) => Effect.Effect<void, unknown>) =>
    Effect.forEach(disturbed, change, { concurrency: "unbounded", discard: true })
  const accepted = disturbed.map((network) => network.accepted())

  yield* Effect.gen(function* () {
    yield* whileEnqueuing(
      Effect.gen(function* () {
        yield* untilWorking(5)
        yield* all(fault.begin)
        yield* Effect.sleep(fault.millis)
        yield* all(fault.end)
        yield* untilProgress(performance.now(), (what, millis) => note(`during work, ${what}`, millis))
      })
    )
    yield* untilIdle

    const [expected, delayed] = makePayloads(2, 0)
    const waiting = [
      yield* producer.waitFor("expected", expected!),
      yield* producer.enqueue(delayed!, { delay: "1 second" })
    ]
    yield* Effect.sleep("500 millis")
    yield* all(fault.begin)
    yield* Effect.sleep(Math.min(500, fault.millis))
    yield* observer.enqueue(expected!, { id: "expected" })
    yield* Effect.sleep(fault.millis)
    yield* all(fault.end)
    const healed = performance.now()
    yield* untilResolved(() => waiting)
    // the waiter may have been resolved before
    note("idle, a waiter is resolved", Math.max(0, ...waiting.map(({ resolvedAt }) => resolvedAt! - healed)))
    yield* untilProgress(healed, (what, millis) => note(`idle, ${what}`, millis))
    yield* untilIdle
  }).pipe(Effect.ensuring(Effect.ignore(all(heal))))

  assert.deepStrictEqual(
    [...producer.tasks, ...observer.tasks].flatMap(({ error }) => error ?? []),
    []
  )
  if (fault.cuts) {
    for (const [i, network] of disturbed.entries()) {
      assert.isAbove(network.accepted(), accepted[i]!, "the client has reconnected")
    }
  }
  assert.deepStrictEqual(overlappingRuns(), [], "no task was run while another run held it")
  return yield* audit
})

/** Servers that the tests of a suite share. */
class Shared extends Context.Service<Shared, RunningStore>()("chicory/test/faults/networkSuite/Shared") {}

/** Registers the tests. */
export const suite = (store: OwnStore): void => {
  const figures = Figures.make()
  const audits: Array<readonly [string, Audit.Audit]> = []
  const cases: ReadonlyArray<readonly [Fault, Target]> = isFullRun
    ? Object.values<Fault>(faults).flatMap((fault) =>
        (fault.targets ?? targets).map((target) => [fault, target] as const)
      )
    : short
  store.describe(`the network to ${store.name}`, () => {
    afterAll(() => {
      console.log(Audit.table(store.name, audits))
      Figures.print(`${store.name}, since the end of the fault`, figures)
    })
    layer(Layer.effect(Shared, store.start), { excludeTestServices: true, timeout: "60 seconds" })(
      "fails:",
      (it) => {
        describe.concurrent("guarantee 9: no task is lost and every client recovers when it", () => {
          for (const [fault, target] of cases) {
            it.effect(
              `${fault.name}, on the route ${target}`,
              () =>
                Effect.gen(function* () {
                  const audit = yield* disturb(yield* Shared, fault, target, (what, millis) =>
                    figures.note(fault.name, what, millis)
                  )
                  audits.push([`${fault.name}, ${target}`, audit])
                  // a run whose lease ran out is repeated; overlapping runs are checked already
                  Audit.verify(fault.lapses === true ? { ...audit, reruns: 0 } : audit)
                  // the warnings of lost connections are expected
                }).pipe(Effect.provide(Logger.layer([]))),
              isFullRun ? 600_000 : 240_000
            )
          }
        })
      }
    )
  })
}
