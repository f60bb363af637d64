/**
 * The driver under test, as the tests of `BackendSuite` speak to it.
 */
import { assert, type TestContext } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import type {
  BackendDriver,
  DeadLetter,
  NewRecord,
  Outcome,
  ParkedMessage,
  Start,
  TaskRecord
} from "../../../BackendDriver.ts"
import * as Suite from "../Suite.ts"

/** The subject of a test. */
export type Subject = ReturnType<typeof subject>

/** Registers one test. */
export type Test = (
  title: string,
  body: (on: Subject, context: TestContext) => Effect.fn.Return<void, unknown, Scope.Scope>
) => void

/** A task that is enqueued. */
export const record = (id: string, more?: Partial<NewRecord>): NewRecord => ({
  id,
  task: "mail",
  key: undefined,
  payloadHash: "",
  expiresMillis: undefined,
  retentionMillis: undefined,
  published: true,
  ...more
})

/** Ends a task. */
export const success = (exit = `{"success":1}`, retentionMillis?: number): Outcome => ({
  _tag: "Success",
  exit,
  retentionMillis
})

/** A failure without a dead letter. */
export const failure = (exit = `{"failure":1}`): Outcome => ({
  _tag: "Failure",
  exit,
  retentionMillis: undefined,
  deadLetter: undefined
})

/** A failure that leaves a dead letter. */
export const burial = (
  reason = "Failed",
  letterRetention?: number,
  retentionMillis?: number,
  message: Pick<Start, "queue" | "body"> = { queue: "default", body: "a message" }
): Outcome => ({
  _tag: "Failure",
  exit: `{"failure":"${reason}"}`,
  retentionMillis,
  deadLetter: { reason, retentionMillis: letterRetention, ...message }
})

/** Puts a task back for another run. */
export const retry = (afterMillis = 0): Outcome => ({ _tag: "Retry", afterMillis })

/** Puts a task back, nothing counted. */
export const RELEASE: Outcome = { _tag: "Release" }

/** A message that no run can be made of. */
export const parked = (deadLetterId: string, more?: Partial<ParkedMessage>): ParkedMessage => ({
  deadLetterId,
  queue: "default",
  reason: "PayloadInvalid",
  exit: `{"failure":"undecodable"}`,
  body: "not a message",
  retentionMillis: undefined,
  ...more
})

/** A body in a form that compares. */
export const bytesOf = (body: string | Uint8Array): Array<number> | string =>
  typeof body === "string" ? body : Array.from(body)

/** The driver's operations on one item each, with the answers that a test goes on from checked. */
export const subject = (driver: BackendDriver, time: Suite.Time) => {
  const ask = (id: string, token: string, more?: Partial<Start>): Start => ({
    id,
    task: "mail",
    generation: 0,
    token,
    worker: `worker of ${token}`,
    queue: "default",
    body: `{"message":"${token}"}`,
    leaseMillis: time.long,
    deliveryMode: "at-least-once",
    maxCrashes: 3,
    expiresMillis: undefined,
    retentionMillis: undefined,
    deadLetterRetentionMillis: undefined,
    ...more
  })
  const create = (id: string, more?: Partial<NewRecord>) => Suite.only(driver.create([record(id, more)]))
  const start = (id: string, token: string, more?: Partial<Start>) =>
    Suite.only(driver.start([ask(id, token, more)]))
  const settle = (id: string, token: string, outcome: Outcome) =>
    Suite.only(driver.settle([{ id, token, outcome }]))
  const find = (id: string) => Suite.only(driver.read([id]))
  const read = (id: string): Effect.Effect<TaskRecord, unknown> =>
    Effect.map(find(id), (found) => {
      assert(found !== undefined, `the record of ${id} is there`)
      return found
    })
  const run = (id: string, token: string, more?: Partial<Start>) =>
    Effect.map(start(id, token, more), (started) => {
      assert(started._tag === "Run", `${token} starts ${id}, and is not told ${started._tag}`)
      return started
    })
  const end = (id: string, token: string, outcome: Outcome) =>
    Effect.map(settle(id, token, outcome), (settled) => assert.strictEqual(settled, "Stored"))
  /** Starts and settles. */
  const play = (id: string, token: string, outcome: Outcome, more?: Partial<Start>) =>
    Effect.andThen(run(id, token, more), end(id, token, outcome))
  /** A run whose lease has run out. */
  const crash = (id: string, token: string, more?: Partial<Start>) =>
    Effect.tap(run(id, token, { leaseMillis: time.units(1), ...more }), time.pass(2))
  const page = (limit = 100, after?: string, task?: string) => driver.listDeadLetters({ limit, after, task })
  const letters = (task?: string) => page(100, undefined, task)
  const letter: Effect.Effect<DeadLetter, unknown> = Suite.only(letters())
  /** Sweeps until nothing is left to sweep; how many in all. */
  const sweepAll = Effect.gen(function* () {
    let total = 0
    for (;;) {
      const swept = yield* driver.sweep(100)
      total += swept
      if (swept === 0) return total
    }
  })
  /** Checks the state and who ended the task. */
  const expectEnd = (id: string, ended: TaskRecord["ended"]) =>
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
    ask,
    create,
    start,
    settle,
    find,
    read,
    run,
    end,
    play,
    crash,
    page,
    letters,
    letter,
    sweepAll,
    expectEnd,
    renew: (id: string, token: string, progress?: string, leaseMillis = time.long) =>
      Suite.only(driver.renew([{ id, token, leaseMillis, progress }])),
    cancel: (id: string) => Suite.only(driver.cancel([id])),
    reopen: (letterId: string) => Suite.only(driver.reopen([letterId]))
  }
}
