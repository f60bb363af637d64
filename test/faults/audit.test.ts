/** Tests of the audit itself: it reports every kind of fault. */
import { assert, describe, it } from "@effect/vitest"
import { TaskFailed } from "chicory"
import { Exit } from "effect"
import type { TaskRecord } from "../../src/BackendDriver.ts"
import * as Audit from "./audit.ts"
import { type Outcome, payload, type Refused } from "./job.ts"
import type { WorkerEvent } from "./workerEvents.ts"

const record = (options: Partial<TaskRecord> = {}): TaskRecord => ({
  id: "a",
  task: "job",
  state: "SUCCESS",
  incarnation: "",
  generation: 0,
  attempt: 1,
  retries: 0,
  crashes: 0,
  exit: "the first",
  progress: null,
  worker: "w",
  cancelRequested: false,
  ended: null,
  enqueuedAt: 0,
  startedAt: 0,
  finishedAt: 0,
  expiresAt: null,
  ...options
})

const right: Outcome = Exit.succeed({ n: 3, square: 9 })
const began = (fence: number): WorkerEvent => ({ _tag: "Began", id: "a", retries: 0, fence })
const settled = (token: string, exit: string, answer: "Stored" | "Lost" = "Stored"): WorkerEvent => ({
  _tag: "Settled",
  id: "a",
  token,
  outcome: "Success",
  exit,
  answer
})

/** Audits one task. */
const of = (
  workers: ReadonlyArray<ReadonlyArray<WorkerEvent>>,
  task: {
    readonly outcomes?: ReadonlyArray<Outcome | undefined>
    readonly record?: TaskRecord | undefined
  } = {},
  halted = false
) =>
  Audit.of(
    [{ id: "a", payload: payload(3), outcomes: [right], record: record(), ...task }],
    workers.map((events) => ({ events, halted }))
  )

const normal = [began(1), settled("one", "the first")]

describe("audit", () => {
  it("has no findings for a normal run", () => {
    const audit = of([normal])
    assert.deepStrictEqual(Audit.findingsOf(audit), [])
    assert.strictEqual(audit.terminal, 1)
    assert.strictEqual(audit.runs, 1)
  })

  it("ignores a repeated and a refused settlement", () => {
    const audit = of([
      [...normal, settled("one", "the first")],
      [began(0), settled("zero", "other", "Lost")]
    ])
    assert.strictEqual(audit.duplicated, 0)
  })

  it("finds a second accepted outcome", () => {
    assert.strictEqual(of([normal, [began(2), settled("two", "the first")]]).duplicated, 1)
  })

  it("finds a run that began after the end", () => {
    assert.strictEqual(of([normal, [began(2)]]).duplicated, 1)
  })

  it("finds a changed outcome", () => {
    assert.strictEqual(of([normal], { record: record({ exit: "another" }) }).duplicated, 1)
  })

  it("finds a waiter whose outcome is wrong or differs from the stored one", () => {
    assert.strictEqual(of([normal], { outcomes: [Exit.succeed({ n: 3, square: 8 })] }).wrong, 1)
    assert.strictEqual(of([normal], { record: record({ state: "FAILURE", exit: "the first" }) }).wrong, 1)
    const lost = new TaskFailed.TaskFailed<Refused>({
      taskId: "a",
      taskName: "job",
      attempts: 1,
      reason: new TaskFailed.WorkerLost({ worker: "w" })
    })
    assert.strictEqual(of([normal], { outcomes: [Exit.fail(lost)] }).wrong, 1)
  })

  it("finds an unfinished task and a missing record", () => {
    assert.strictEqual(of([normal], { record: record({ state: "RETRY", exit: null }) }).lost, 1)
    assert.strictEqual(of([normal], { record: undefined }).lost, 1)
  })

  it("finds a waiter without an outcome", () => {
    assert.strictEqual(of([normal], { outcomes: [right, undefined] }).hanging, 1)
  })

  it("finds a worker with missing events", () => {
    assert.include(Audit.findingsOf(of([[]])).join(), "0 runs")
  })

  it("finds a run that was repeated although no worker was halted", () => {
    const twice = [[began(1)], [began(2), settled("two", "the first")]]
    assert.include(Audit.findingsOf(of(twice)).join(), "ran again")
    assert.deepStrictEqual(Audit.findingsOf(of(twice, {}, true)), [])
  })
})
