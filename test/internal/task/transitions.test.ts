import { assert, describe, it } from "@effect/vitest"
import {
  decideCancel,
  decideCreate,
  decideForget,
  decideRenew,
  decideReopen,
  decideSettle,
  decideStart,
  decideWithdraw,
  lapse,
  type OutcomeTag,
  type StartDecision,
  type StartRequest,
  stateAfterRetries,
  type TaskFacts,
  type WithdrawnMessage
} from "../../../src/internal/task/transitions.ts"

const now = 1_000

const waiting: TaskFacts = {
  task: "mail",
  state: "PENDING",
  incarnation: "x1",
  generation: 1,
  crashes: 0,
  token: null,
  leaseUntil: null,
  atMostOnce: false,
  cancelRequested: false,
  withdrawn: false,
  expiresAt: null,
  dueAt: null,
  ended: null
}
const task = (facts: Partial<TaskFacts> = {}): TaskFacts => ({ ...waiting, ...facts })
const running = (facts: Partial<TaskFacts> = {}): TaskFacts =>
  task({ state: "STARTED", token: "t1", leaseUntil: now + 1, ...facts })
const lapsed = (facts: Partial<TaskFacts> = {}): TaskFacts => running({ leaseUntil: now, ...facts })
const success = task({ state: "SUCCESS", token: "t1" })
const failure = task({ state: "FAILURE", token: "t1" })
const cancelled = task({ state: "FAILURE", token: "t1", ended: "Cancelled" })
const retrying = task({ state: "RETRY", token: "t1", dueAt: now })

/** Registers a test for each row: a rule, what it says, the decision, and what the rule asks for. */
const rules = (
  rows: ReadonlyArray<readonly [rule: string, what: string, decision: unknown, is: unknown]>
) => {
  for (const [rule, what, decision, is] of rows)
    it(`${rule}: ${what}`, () => assert.deepStrictEqual(decision, is))
}

describe("lapse", () => {
  rules([
    ["L1", "a waiting task expires at its expiry", lapse(task({ expiresAt: now }), now), "Expired"],
    ["L1", "a waiting task does not expire before", lapse(task({ expiresAt: now + 1 }), now), undefined],
    ["L1", "a running task does not expire", lapse(running({ expiresAt: now }), now), undefined],
    [
      "L2",
      "a lapsed at-most-once run with a cancel request ends as Cancelled",
      lapse(lapsed({ atMostOnce: true, cancelRequested: true }), now),
      "Cancelled"
    ],
    [
      "L2",
      "a lapsed run with a cancel request ends as Cancelled",
      lapse(lapsed({ cancelRequested: true }), now),
      "Cancelled"
    ],
    [
      "L2",
      "a lapsed run whose message was withdrawn ends as Cancelled",
      lapse(lapsed({ withdrawn: true }), now),
      "Cancelled"
    ],
    ["L2", "a run with a live lease does not end", lapse(running({ withdrawn: true }), now), undefined],
    [
      "L3",
      "a lapsed at-most-once run ends as WorkerLost",
      lapse(lapsed({ atMostOnce: true }), now),
      "WorkerLost"
    ],
    [
      "L3",
      "an at-most-once run with a live lease does not end",
      lapse(running({ atMostOnce: true }), now),
      undefined
    ],
    ["L3", "a lapsed at-least-once run is left to the next start", lapse(lapsed(), now), undefined]
  ])
})

describe("decideStart", () => {
  const start = (facts: TaskFacts | undefined, request: Partial<StartRequest> = {}): StartDecision =>
    decideStart(
      facts,
      { task: "mail", token: "t2", incarnation: "x1", generation: 1, maxCrashes: 3, ...request },
      now
    )
  const runs = (crashes = 0, opens?: number): StartDecision => ({ _tag: "Run", opens, crashes })

  rules([
    ["S0", "a message without a record starts nothing", start(undefined), { _tag: "NoRecord" }],
    ["S3", "a message of another task is dropped", start(waiting, { task: "other" }), { _tag: "Drop" }],
    [
      "S3",
      "a message of another incarnation is dropped, whatever its generation",
      start(waiting, { incarnation: "x2", generation: 2 }),
      { _tag: "Drop" }
    ],
    [
      "S3",
      "a message of another incarnation does not end a lapsed run",
      start(lapsed({ crashes: 2 }), { incarnation: "" }),
      { _tag: "Drop" }
    ],
    [
      "S8",
      "a lapsed run whose message was withdrawn ends as Cancelled",
      start(lapsed({ withdrawn: true })),
      { _tag: "End", ended: "Cancelled", crashes: 0 }
    ],
    [
      "S1",
      "the token of the open run repeats its start",
      start(running(), { token: "t1" }),
      { _tag: "Repeat" }
    ],
    [
      "S1",
      "the token of a lapsed run repeats its start",
      start(lapsed(), { token: "t1" }),
      { _tag: "Repeat" }
    ],
    ["S2", "an ended task drops the message", start(success), { _tag: "Drop" }],
    [
      "S3",
      "a message of an older generation is dropped",
      start(waiting, { generation: 0 }),
      { _tag: "Drop" }
    ],
    [
      "S4",
      "an expired task ends as Expired",
      start(task({ expiresAt: now, crashes: 2 })),
      { _tag: "End", ended: "Expired", crashes: 2 }
    ],
    [
      "S5",
      "a retry that is not due is busy for the remainder",
      start(task({ state: "RETRY", dueAt: now + 7 })),
      { _tag: "Busy", millis: 7 }
    ],
    ["S5", "a retry that is due runs", start(retrying), runs()],
    [
      "S10",
      "a task that was never started runs before its delay ends",
      start(task({ dueAt: now + 7 })),
      runs()
    ],
    [
      "S6",
      "a live lease is busy for the remainder",
      start(running({ leaseUntil: now + 7 })),
      { _tag: "Busy", millis: 7 }
    ],
    [
      "S7",
      "a lapsed at-most-once run ends as WorkerLost",
      start(lapsed({ atMostOnce: true })),
      { _tag: "End", ended: "WorkerLost", crashes: 0 }
    ],
    [
      "S7",
      "a lapsed at-most-once run with a cancel request ends as Cancelled",
      start(lapsed({ atMostOnce: true, cancelRequested: true })),
      { _tag: "End", ended: "Cancelled", crashes: 0 }
    ],
    [
      "S8",
      "a lapsed run with a cancel request ends as Cancelled, with nothing counted",
      start(lapsed({ cancelRequested: true, crashes: 1 })),
      { _tag: "End", ended: "Cancelled", crashes: 1 }
    ],
    [
      "S9",
      "a lapsed run at the limit of crashes ends as WorkerLost",
      start(lapsed({ crashes: 2 })),
      { _tag: "End", ended: "WorkerLost", crashes: 3 }
    ],
    ["S10", "a waiting task runs", start(waiting), runs()],
    ["S10", "a lapsed run counts a crash and runs again", start(lapsed({ crashes: 1 })), runs(2)],
    [
      "S10",
      "a message of a newer generation opens it with nothing counted",
      start(lapsed({ crashes: 1 }), { generation: 2 }),
      runs(0, 2)
    ]
  ])
})

describe("decideSettle", () => {
  const settle = (facts: TaskFacts | undefined, outcome: OutcomeTag, token = "t1") =>
    decideSettle(facts, token, outcome)

  rules([
    ["T1", "a missing record answers Lost", settle(undefined, "Success"), "Lost"],
    ["T1", "another token answers Lost", settle(running(), "Success", "t0"), "Lost"],
    [
      "T2",
      "a retry under a cancel request cancels",
      settle(running({ cancelRequested: true }), "Retry"),
      "Cancel"
    ],
    [
      "T2",
      "a release under a cancel request cancels",
      settle(running({ cancelRequested: true }), "Release"),
      "Cancel"
    ],
    ["T2", "a retry without a message cancels", settle(running({ withdrawn: true }), "Retry"), "Cancel"],
    ["T2", "a release without a message cancels", settle(running({ withdrawn: true }), "Release"), "Cancel"],
    [
      "T3",
      "a success of the open run is written",
      settle(running({ cancelRequested: true }), "Success"),
      "Write"
    ],
    ["T3", "a failure of a lapsed run is written", settle(lapsed(), "Failure"), "Write"],
    ["T3", "a retry of the open run is written", settle(running(), "Retry"), "Write"],
    ["T3", "a release of the open run is written", settle(running(), "Release"), "Write"],
    ["T4", "a repeated success compares its exit", settle(success, "Success"), "CompareExit"],
    ["T4", "a repeated failure compares its exit", settle(failure, "Failure"), "CompareExit"],
    ["T5", "a repeated retry of a cancelled task answers Cancelled", settle(cancelled, "Retry"), "Cancelled"],
    [
      "T5",
      "a repeated release of a cancelled task answers Cancelled",
      settle(cancelled, "Release"),
      "Cancelled"
    ],
    ["T6", "a repeated retry answers Stored", settle(retrying, "Retry"), "Stored"],
    ["T6", "a repeated release answers Stored", settle(task({ token: "t1" }), "Release"), "Stored"],
    ["T7", "a failure after a success answers Lost", settle(success, "Failure"), "Lost"],
    ["T7", "a success after a failure answers Lost", settle(failure, "Success"), "Lost"],
    ["T7", "a failure after a cancellation answers Lost", settle(cancelled, "Failure"), "Lost"],
    ["T7", "a release after a retry answers Lost", settle(retrying, "Release"), "Lost"],
    ["T7", "a success after a release answers Lost", settle(task({ token: "t1" }), "Success"), "Lost"]
  ])

  rules([
    ["T3", "a release returns to PENDING without retries", stateAfterRetries(0), "PENDING"],
    ["T3", "a release returns to RETRY after retries", stateAfterRetries(1), "RETRY"]
  ])
})

describe("decideCancel", () => {
  rules([
    ["C1", "an ended task answers AlreadyDone", decideCancel(success, now), "AlreadyDone"],
    ["C2", "a running task stores the request", decideCancel(running(), now), "Request"],
    ["C2", "a lapsed run stores the request", decideCancel(lapsed(), now), "Request"],
    ["C3", "an expired task ends as Expired", decideCancel(task({ expiresAt: now }), now), "Expired"],
    ["C4", "a waiting task ends as Cancelled", decideCancel(waiting, now), "Cancelled"]
  ])
})

describe("decideWithdraw", () => {
  const withdraw = (facts: TaskFacts | undefined, message: Partial<WithdrawnMessage> = {}) =>
    decideWithdraw(facts, { incarnation: "x1", generation: 1, ...message }, now)

  rules([
    ["W1", "a missing record is left", withdraw(undefined), "Nothing"],
    ["W1", "an ended task is left", withdraw(success), "Nothing"],
    ["W1", "a task of another incarnation is left", withdraw(waiting, { incarnation: "" }), "Nothing"],
    ["W1", "a task of another generation is left", withdraw(waiting, { generation: 0 }), "Nothing"],
    ["W2", "a running task is marked", withdraw(running()), "Mark"],
    ["W2", "a lapsed run is marked", withdraw(lapsed()), "Mark"],
    ["W3", "a waiting task ends as Cancelled", withdraw(retrying), "Cancelled"],
    ["W3", "an expired task ends as Expired", withdraw(task({ expiresAt: now })), "Expired"]
  ])
})

describe("decideForget", () => {
  rules([
    ["F1", "an ended task is removed", decideForget(failure), "Remove"],
    ["F2", "a running task is marked", decideForget(running()), "Mark"],
    ["F2", "a waiting task is marked", decideForget(waiting), "Mark"]
  ])
})

describe("decideReopen", () => {
  const reopen = (facts: TaskFacts | undefined, generation: number, incarnation = "x1") =>
    decideReopen(facts, { incarnation, generation })

  rules([
    ["R4", "an ended task of another incarnation is refused", reopen(failure, 1, "x2"), "Refuse"],
    ["R4", "a waiting task of another incarnation is refused", reopen(waiting, 1, ""), "Refuse"],
    ["R1", "a missing record is created", reopen(undefined, 1), "Create"],
    ["R2", "an ended task of the letter's generation is opened", reopen(failure, 1), "Open"],
    ["R2", "an ended task of an older generation is opened", reopen(failure, 2), "Open"],
    ["R3", "an ended task of a later generation is left", reopen(failure, 0), "Leave"],
    ["R3", "an unfinished task of the letter's generation is left", reopen(waiting, 1), "Leave"],
    ["R3", "a run of the next generation is left", reopen(running(), 0), "Leave"],
    ["R5", "a task that waits in the next generation is renewed", reopen(waiting, 0), "Renew"]
  ])
})

describe("decideCreate", () => {
  const create = (
    existing: { task?: string; payloadHash?: string; ended?: TaskFacts["ended"] },
    payloadHash = "p1"
  ) => decideCreate({ task: "a", payloadHash: "p1", ended: null, ...existing }, { task: "a", payloadHash })

  rules([
    ["E1", "another task's name is not the same", create({ task: "b" }), { same: false, adopts: false }],
    ["E1", "another payload is not the same", create({}, "p2"), { same: false, adopts: false }],
    ["E2", "the same payload is the same", create({}), { same: true, adopts: false }],
    ["E2", "an unknown payload of the request is the same", create({}, ""), { same: true, adopts: false }],
    [
      "E3",
      "a record without a payload adopts that of the request",
      create({ payloadHash: "" }),
      { same: true, adopts: true }
    ],
    [
      "E1",
      "a forgotten task that has not ended is not the same",
      create({ payloadHash: "", ended: "Forgotten" }),
      { same: false, adopts: false }
    ]
  ])
})

describe("decideRenew", () => {
  rules([
    ["N1", "a missing record answers Lost", decideRenew(undefined, "t1"), "Lost"],
    ["N1", "a record without an open run answers Lost", decideRenew(retrying, "t1"), "Lost"],
    ["N1", "another token answers Lost", decideRenew(running(), "t0"), "Lost"],
    ["N2", "an open run is held", decideRenew(running(), "t1"), "Held"],
    ["N2", "a lapsed run is held", decideRenew(lapsed(), "t1"), "Held"],
    [
      "N2",
      "an open run with a cancel request answers CancelRequested",
      decideRenew(running({ cancelRequested: true }), "t1"),
      "CancelRequested"
    ]
  ])
})
