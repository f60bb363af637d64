/**
 * The driver under test, with the operations that the tests of `BackendSuite` use.
 */
import { assert, type TestContext } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import type {
  BackendDriver,
  DeadLetter,
  DeadLetterPosition,
  NewRecord,
  Outcome,
  ParkedMessage,
  Start,
  TaskRecord
} from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"

/** The fixture of a test. */
export type Fixture = ReturnType<typeof makeFixture>

/** Registers one test. */
export type Test = (
  title: string,
  body: (t: Fixture, context: TestContext) => Effect.fn.Return<void, unknown, Scope.Scope>
) => void

/** Makes the record of a task that is enqueued. */
export const record = (id: string, more?: Partial<NewRecord>): NewRecord => ({
  id,
  task: "mail",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: undefined,
  reservedMillis: undefined,
  ...more
})

/** Makes the request of a worker to start a run. */
export const startRequest = (id: string, token: string, more?: Partial<Start>): Start => ({
  id,
  task: "mail",
  incarnation: "",
  generation: 0,
  token,
  worker: `worker of ${token}`,
  queue: "default",
  body: `{"message":"${token}"}`,
  leaseMillis: 60_000,
  deliveryMode: "at-least-once",
  maxCrashes: 3,
  retentionMillis: undefined,
  deadLetterRetentionMillis: undefined,
  ...more
})

/** An outcome: a success. */
export const success = (exit = `{"success":1}`, retentionMillis?: number): Outcome => ({
  _tag: "Success",
  exit,
  retentionMillis
})

/** An outcome: a failure without a dead letter. */
export const failure = (exit = `{"failure":1}`): Outcome => ({
  _tag: "Failure",
  exit,
  retentionMillis: undefined,
  deadLetter: undefined
})

/** An outcome: a failure with a dead letter. */
export const failureWithDeadLetter = (
  reason = "Failed",
  deadLetterRetentionMillis?: number,
  retentionMillis?: number,
  message: Pick<Start, "queue" | "body"> = { queue: "default", body: "a message" }
): Outcome => ({
  _tag: "Failure",
  exit: `{"failure":"${reason}"}`,
  retentionMillis,
  deadLetter: { reason, retentionMillis: deadLetterRetentionMillis, ...message }
})

/** An outcome: a retry. */
export const retry = (afterMillis = 0): Outcome => ({ _tag: "Retry", afterMillis })

/** An outcome: a release, which counts nothing. */
export const RELEASE: Outcome = { _tag: "Release" }

/** Makes a message that cannot be decoded, to be parked. */
export const parked = (deadLetterId: string, more?: Partial<ParkedMessage>): ParkedMessage => ({
  deadLetterId,
  queue: "default",
  reason: "PayloadInvalid",
  exit: `{"failure":"undecodable"}`,
  body: "not a message",
  retentionMillis: undefined,
  ...more
})

/** Converts a body to a value that compares by content. */
export const bytesOf = (body: string | Uint8Array): Array<number> | string =>
  typeof body === "string" ? body : Array.from(body)

/** Makes the fixture: operations on one item each, whose answers are checked where a test depends on them. */
export const makeFixture = (driver: BackendDriver, time: Suite.Time) => {
  const requestStart = (id: string, token: string, more?: Partial<Start>) =>
    startRequest(id, token, { leaseMillis: time.long, ...more })
  const create = (id: string, more?: Partial<NewRecord>) => Suite.only(driver.create([record(id, more)]))
  const start = (id: string, token: string, more?: Partial<Start>) =>
    Suite.only(driver.start([requestStart(id, token, more)]))
  const settle = (id: string, token: string, outcome: Outcome) =>
    Suite.only(driver.settle([{ id, token, outcome }]))
  const readOptional = (id: string) => Suite.only(driver.read([id]))
  const read = (id: string): Effect.Effect<TaskRecord, unknown> =>
    Effect.map(readOptional(id), (found) => {
      assert(found !== undefined, `the record of ${id} exists`)
      return found
    })
  /** Starts a run, and expects `Run`. */
  const startRun = (id: string, token: string, more?: Partial<Start>) =>
    Effect.map(start(id, token, more), (started) => {
      assert(started._tag === "Run", `${token} starts ${id}: expected Run, got ${started._tag}`)
      return started
    })
  /** Settles a run, and expects `Stored`. */
  const settleRun = (id: string, token: string, outcome: Outcome) =>
    Effect.map(settle(id, token, outcome), (settled) => assert.strictEqual(settled, "Stored"))
  /** Starts and settles a run. */
  const startAndSettle = (id: string, token: string, outcome: Outcome, more?: Partial<Start>) =>
    Effect.andThen(startRun(id, token, more), settleRun(id, token, outcome))
  /** Starts a run, and waits until its lease has lapsed. */
  const lapsedRun = (id: string, token: string, more?: Partial<Start>) =>
    Effect.tap(startRun(id, token, { leaseMillis: time.units(1), ...more }), time.pass(2))
  const deadLetterPage = (limit = 100, after?: DeadLetterPosition, task?: string) =>
    driver.listDeadLetters({ limit, after, task })
  const deadLetters = (task?: string) => deadLetterPage(100, undefined, task)
  const onlyDeadLetter: Effect.Effect<DeadLetter, unknown> = Suite.only(deadLetters())
  /** Sweeps, and returns how much the sweep handled. */
  const sweep = (limit: number) => Effect.map(driver.sweep(limit), ({ handled }) => handled)
  /** Sweeps until nothing is left to sweep, and returns the total. */
  const sweepAll = Effect.gen(function* () {
    let total = 0
    for (;;) {
      const swept = yield* sweep(100)
      total += swept
      if (swept === 0) return total
    }
  })
  /** Expects a failure that the store decided, for that reason. */
  const expectEndedByStore = (id: string, ended: TaskRecord["ended"]) =>
    Effect.map(read(id), (found) => {
      assert.strictEqual(found.state, "FAILURE")
      assert.strictEqual(found.ended, ended)
      assert.isNull(found.exit)
      assert.isNumber(found.finishedAt)
      return found
    })
  return {
    driver,
    time,
    requestStart,
    create,
    start,
    settle,
    readOptional,
    read,
    startRun,
    settleRun,
    startAndSettle,
    lapsedRun,
    deadLetterPage,
    deadLetters,
    onlyDeadLetter,
    sweep,
    sweepAll,
    expectEndedByStore,
    renew: (id: string, token: string, progress?: string, leaseMillis = time.long) =>
      Suite.only(driver.renew([{ id, token, leaseMillis, progress }])),
    cancel: (id: string) => Suite.only(driver.cancel([id])),
    reopen: (deadLetterId: string, reservedMillis = time.long) =>
      Suite.only(driver.reopen([deadLetterId], reservedMillis)),
    markPublished: (id: string, generation = 0, incarnation = "") =>
      Suite.only(driver.markPublished([{ id, incarnation, generation }]))
  }
}
