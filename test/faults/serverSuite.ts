/** What servers do to those who use a store: they are killed, stopped and frozen in the midst of enqueuing and of work. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Logger, type Scope } from "effect"
import { full } from "../support/fullRun.ts"
import type { OwnServer } from "../support/ownServers.ts"
import { eventually } from "../support/storeFixture.ts"
import * as Accounts from "./audit.ts"
import { begin, BOUND_MILLIS, isForgotten, type Note, type Scene } from "./faultScenario.ts"
import * as Figures from "./figures.ts"
import type { OwnStore } from "./ownStores.ts"

/** How a server goes, and for how long it stays away. */
interface Absence {
  readonly name: string
  readonly begin: (server: OwnServer) => Effect.Effect<void>
  readonly millis: number
  /** Whether leases run out meanwhile. */
  readonly lapses?: boolean
}

/** The hardest of them. */
export const killed: Absence = { name: "killed", begin: ({ kill }) => kill, millis: 300 }

const all: ReadonlyArray<Absence> = [
  killed,
  {
    name: "killed, and away for longer than a call may take",
    begin: ({ kill }) => kill,
    millis: 12_000,
    lapses: true
  },
  { name: "stopped", begin: ({ stop }) => stop, millis: 300 },
  { name: "frozen", begin: ({ freeze }) => freeze, millis: 4_000 }
]

/** Shorter than the absences in the short form; in the full one that of the store. */
const CALL_TIMEOUT = full ? undefined : "2 seconds"

/** How often a server goes. */
const ROUNDS = full ? 3 : 1

/** For a task that may be gone, where nobody ever knew of it but by its id. */
const PATIENCE = "25 seconds"

/** Lets servers go and come back a few times, and waits each time until all is as before. */
const endure = Effect.fnUntraced(function* (
  store: OwnStore,
  part: string | undefined,
  absence: Absence,
  note: Note
): Effect.fn.Return<Scene, unknown, Scope.Scope> {
  const running = yield* store.start
  const urls = running.servers.map(({ url }) => url)
  const scene = yield* begin({
    place: yield* running.place,
    workers: [urls, urls],
    producer: urls,
    onlooker: urls,
    callTimeout: CALL_TIMEOUT,
    lapses: absence.lapses,
    waiting: store.persistence === "kept" ? {} : { timeout: PATIENCE }
  })
  const { alive, make, onlooker, producer, settled, untilAtWork, untilTold, whileEnqueuing } = scene
  const affected = running.servers.filter((_, i) => part === undefined || store.parts[i] === part)
  const all = (change: (server: OwnServer) => Effect.Effect<void, unknown>) =>
    Effect.forEach(affected, change, { concurrency: "unbounded", discard: true })
  const back = all(({ start, thaw }) => Effect.andThen(thaw, start))
  const goAndComeBack = Effect.gen(function* () {
    yield* all(absence.begin)
    yield* Effect.sleep(absence.millis)
    yield* back
    return performance.now()
  })

  yield* Effect.gen(function* () {
    yield* alive(performance.now(), () => {})
    yield* settled
    yield* running.settle
    for (let round = 0; round < ROUNDS; round++) {
      yield* whileEnqueuing(
        Effect.gen(function* () {
          yield* untilAtWork(6)
          const since = yield* goAndComeBack
          yield* alive(since, (what, millis) => note(`in the midst of work, ${what}`, millis))
        })
      )
      yield* settled

      const [payload] = make(1, 0)
      const id = `expected ${round}`
      const expected = yield* producer.expect(id, payload!)
      const since = yield* goAndComeBack
      yield* onlooker.enqueue(payload!, { id })
      yield* untilTold(() => [expected])
      note("idle, a waiter is told of a task that is enqueued then", expected.told! - since)
      yield* alive(since, (what, millis) => note(`idle, ${what}`, millis))
      yield* settled
    }
  }).pipe(Effect.ensuring(Effect.ignore(back)))
  return scene
})

/** What was confirmed is there, and ends once. */
const assertKept = Effect.fnUntraced(function* (
  { account, heldTwice, onlooker, producer }: Scene,
  { lapses }: Absence
) {
  const errors = [...producer.tasks, ...onlooker.tasks].flatMap(({ error }) => error ?? [])
  assert.deepStrictEqual(errors, [])
  assert.deepStrictEqual([...producer.tasks, ...onlooker.tasks].filter(isForgotten), [])
  assert.deepStrictEqual(heldTwice(), [], "no task was run while another run held it")
  const drawn = yield* account
  // whose lease ran out, that is run again, and that it did is looked at already
  Accounts.verify(lapses === true ? { ...drawn, ranAgain: 0 } : drawn)
  return drawn
})

/** What was confirmed may be gone: then nobody waits for it for ever, and what is there ends as it should. */
const assertNotWrong = Effect.fnUntraced(function* ({ account, onlooker, producer, records }: Scene) {
  const tasks = [...producer.tasks, ...onlooker.tasks]
  for (const { error } of tasks) if (error !== undefined) assert.include(error, "TimeoutError")
  // whose waiters were told that it is gone may still run, where its message is left
  const open = Effect.map(records, (all) =>
    [...all.values()].filter(
      (record) => record !== undefined && record.state !== "SUCCESS" && record.state !== "FAILURE"
    )
  )
  yield* Effect.timeoutOption(eventually(Effect.map(open, ({ length }) => length === 0)), BOUND_MILLIS)
  assert.deepStrictEqual(yield* open, [], "what is there has ended")
  const drawn = yield* account
  assert.strictEqual(drawn.wrong, 0, JSON.stringify(drawn))
  assert.strictEqual(drawn.hanging, 0, JSON.stringify(drawn))
  return drawn
})

/** How many waiters were told what of tasks that are gone. */
const gone = ({ onlooker, producer }: Scene): string => {
  const tasks = [...producer.tasks, ...onlooker.tasks]
  const overdue = tasks.filter(({ error }) => error !== undefined).length
  return `Forgotten ${tasks.filter(isForgotten).length}, timed out ${overdue}`
}

/** Registers the tests. Of a store that may lose what is confirmed the servers are killed only. */
export const suite = (
  store: OwnStore,
  absences: ReadonlyArray<Absence> = store.persistence === "kept" ? all : [killed]
): void => {
  const figures = Figures.make()
  const accounts: Array<readonly [string, Accounts.Accounts]> = []
  const kept = store.persistence === "kept"
  const affected = store.parts.length === 1 ? store.parts : [...store.parts, undefined]
  const cases = (full ? absences : [killed]).flatMap((absence) =>
    (full ? affected : affected.slice(-1)).map((part) => [absence, part] as const)
  )
  store.describe(`a server of ${store.name}`, () => {
    afterAll(() => {
      console.log(Accounts.page(store.name, accounts))
      Figures.print(`${store.name}, since the server was back`, figures)
    })
    describe.concurrent(
      kept
        ? "keeps what is confirmed, and everybody goes on, when"
        : "may lose what is confirmed, but nothing is wrong, and everybody goes on, when",
      () => {
        for (const [absence, part] of cases) {
          const name = `${part ?? store.parts.join(" and ")} ${part === undefined ? "are" : "is"} ${absence.name}`
          it.live(
            name,
            () =>
              Effect.gen(function* () {
                const scene = yield* endure(store, part, absence, (what, millis) =>
                  figures.note(absence.name, what, millis)
                )
                const drawn = yield* kept ? assertKept(scene, absence) : assertNotWrong(scene)
                accounts.push([kept ? name : `${name}: ${gone(scene)}`, drawn])
                // the warnings of lost connections are expected
              }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
            full ? 600_000 : 240_000
          )
        }
      }
    )
  })
}
