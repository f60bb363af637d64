/** Tests with servers that are killed, stopped and frozen while tasks are enqueued and run. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Logger, type Scope } from "effect"
import { isFullRun } from "../support/fullRun.ts"
import type { OwnServer } from "../support/ownServers.ts"
import { eventually } from "../support/storeFixture.ts"
import * as Audit from "./audit.ts"
import { startScenario, BOUND_MILLIS, isForgotten, type Note, type FaultScenario } from "./faultScenario.ts"
import * as Figures from "./figures.ts"
import type { OwnStore } from "./ownStores.ts"

/** How a server goes down, and for how long. */
interface Outage {
  readonly name: string
  readonly begin: (server: OwnServer) => Effect.Effect<void>
  readonly millis: number
  /** Whether leases run out during the outage. */
  readonly lapses?: boolean
}

/** The hardest outage. */
export const killed: Outage = { name: "killed", begin: ({ kill }) => kill, millis: 300 }

const all: ReadonlyArray<Outage> = [
  killed,
  {
    name: "killed, and down for longer than a call timeout",
    begin: ({ kill }) => kill,
    millis: 12_000,
    lapses: true
  },
  { name: "stopped", begin: ({ stop }) => stop, millis: 300 },
  { name: "frozen", begin: ({ freeze }) => freeze, millis: 4_000 }
]

/** Shorter than the outages in the short form; the store's default in the full form. */
const CALL_TIMEOUT = isFullRun ? undefined : "2 seconds"

/** Outages of a server in one test. */
const ROUNDS = isFullRun ? 3 : 1

/** Bounds the wait for a task that may be lost and that its waiter knows by its id alone. */
const TIMEOUT = "25 seconds"

/** Takes servers down and up again, and waits each time until the system is idle. */
const runOutages = Effect.fnUntraced(function* (
  store: OwnStore,
  part: string | undefined,
  outage: Outage,
  note: Note
): Effect.fn.Return<FaultScenario, unknown, Scope.Scope> {
  const running = yield* store.start
  const urls = running.servers.map(({ url }) => url)
  const scenario = yield* startScenario({
    instance: yield* running.newInstance,
    workers: [urls, urls],
    producer: urls,
    observer: urls,
    callTimeout: CALL_TIMEOUT,
    lapses: outage.lapses,
    waiting: store.persistence === "kept" ? {} : { timeout: TIMEOUT }
  })
  const {
    untilProgress,
    makePayloads,
    observer,
    producer,
    untilIdle,
    untilWorking,
    untilResolved,
    whileEnqueuing
  } = scenario
  const affected = running.servers.filter((_, i) => part === undefined || store.parts[i] === part)
  const all = (change: (server: OwnServer) => Effect.Effect<void, unknown>) =>
    Effect.forEach(affected, change, { concurrency: "unbounded", discard: true })
  const restore = all(({ start, thaw }) => Effect.andThen(thaw, start))
  const interruptService = Effect.gen(function* () {
    yield* all(outage.begin)
    yield* Effect.sleep(outage.millis)
    yield* restore
    return performance.now()
  })

  yield* Effect.gen(function* () {
    yield* untilProgress(performance.now(), () => {})
    yield* untilIdle
    yield* running.settle
    for (let round = 0; round < ROUNDS; round++) {
      yield* whileEnqueuing(
        Effect.gen(function* () {
          yield* untilWorking(6)
          const since = yield* interruptService
          yield* untilProgress(since, (what, millis) => note(`during work, ${what}`, millis))
        })
      )
      yield* untilIdle

      const [payload] = makePayloads(1, 0)
      const id = `expected ${round}`
      const expected = yield* producer.waitFor(id, payload!)
      const since = yield* interruptService
      yield* observer.enqueue(payload!, { id })
      yield* untilResolved(() => [expected])
      note("idle, the waiter of a task enqueued then is resolved", expected.resolvedAt! - since)
      yield* untilProgress(since, (what, millis) => note(`idle, ${what}`, millis))
      yield* untilIdle
    }
  }).pipe(Effect.ensuring(Effect.ignore(restore)))
  return scenario
})

/** Asserts that confirmed tasks exist and end once. */
export const assertKept = Effect.fnUntraced(function* (
  { audit, overlappingRuns, observer, producer }: FaultScenario,
  { lapses }: Pick<Outage, "lapses">
) {
  const errors = [...producer.tasks, ...observer.tasks].flatMap(({ error }) => error ?? [])
  assert.deepStrictEqual(errors, [])
  assert.deepStrictEqual([...producer.tasks, ...observer.tasks].filter(isForgotten), [])
  assert.deepStrictEqual(overlappingRuns(), [], "no task was run while another run held it")
  const result = yield* audit
  // a run whose lease ran out is repeated; overlapping runs are checked already
  Audit.verify(lapses === true ? { ...result, reruns: 0 } : result)
  return result
})

/** Asserts that waiters of lost tasks are released and that the remaining tasks end correctly. */
const assertConsistent = Effect.fnUntraced(function* ({ audit, observer, producer, records }: FaultScenario) {
  const tasks = [...producer.tasks, ...observer.tasks]
  for (const { error } of tasks) if (error !== undefined) assert.include(error, "TimeoutError")
  // a task whose waiters failed with Forgotten may still run if its message is left
  const open = Effect.map(records, (all) =>
    [...all.values()].filter(
      (record) => record !== undefined && record.state !== "SUCCESS" && record.state !== "FAILURE"
    )
  )
  yield* Effect.timeoutOption(eventually(Effect.map(open, ({ length }) => length === 0)), BOUND_MILLIS)
  assert.deepStrictEqual(yield* open, [], "every remaining task has ended")
  const result = yield* audit
  assert.strictEqual(result.wrong, 0, JSON.stringify(result))
  assert.strictEqual(result.hanging, 0, JSON.stringify(result))
  return result
})

/** Counts the waiters of lost tasks by how they ended. */
const lostSummary = ({ observer, producer }: FaultScenario): string => {
  const tasks = [...producer.tasks, ...observer.tasks]
  const overdue = tasks.filter(({ error }) => error !== undefined).length
  return `Forgotten ${tasks.filter(isForgotten).length}, timed out ${overdue}`
}

/** Registers the tests. The servers of a store that may lose confirmed tasks are only killed. */
export const suite = (
  store: OwnStore,
  outages: ReadonlyArray<Outage> = store.persistence === "kept" ? all : [killed]
): void => {
  const figures = Figures.make()
  const audits: Array<readonly [string, Audit.Audit]> = []
  const kept = store.persistence === "kept"
  const affected = store.parts.length === 1 ? store.parts : [...store.parts, undefined]
  const cases = (isFullRun ? outages : [killed]).flatMap((outage) =>
    (isFullRun ? affected : affected.slice(-1)).map((part) => [outage, part] as const)
  )
  store.describe(`the servers of ${store.name}`, () => {
    afterAll(() => {
      console.log(Audit.table(store.name, audits))
      Figures.print(`${store.name}, since the server was back`, figures)
    })
    describe.concurrent(
      kept
        ? "guarantee 9: keep confirmed tasks and let every client recover when"
        : "guarantee 9: may lose confirmed tasks, but give no wrong outcome and let every client recover when",
      () => {
        for (const [outage, part] of cases) {
          const name = `${part ?? store.parts.join(" and ")} ${part === undefined ? "are" : "is"} ${outage.name}`
          it.live(
            name,
            () =>
              Effect.gen(function* () {
                const scenario = yield* runOutages(store, part, outage, (what, millis) =>
                  figures.note(outage.name, what, millis)
                )
                const audit = yield* kept ? assertKept(scenario, outage) : assertConsistent(scenario)
                audits.push([kept ? name : `${name}: ${lostSummary(scenario)}`, audit])
                // the warnings of lost connections are expected
              }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
            isFullRun ? 600_000 : 240_000
          )
        }
      }
    )
  })
}
