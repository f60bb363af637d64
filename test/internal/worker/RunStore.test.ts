import { assert, describe, it } from "@effect/vitest"
import { Backend } from "chicory"
import type { Started } from "chicory/driver"
import { Array as Arr, Effect } from "effect"
import { toEffect } from "../../../src/internal/concurrency/Batcher.ts"
import type { RunOutcome } from "../../../src/internal/worker/runOutcome.ts"
import { makeRunStore, type RunStore, type StartCandidate } from "../../../src/internal/worker/RunStore.ts"
import { Died } from "../../../src/TaskFailed.ts"
import * as TaskMessage from "../../../src/TaskMessage.ts"
import { advance } from "../../support/memoryFixture.ts"
import * as MemoryFixture from "../../support/memoryFixture.ts"
import { withoutAges } from "../../support/withoutAges.ts"

const head: TaskMessage.Head = {
  v: TaskMessage.version,
  id: "a",
  generation: 0,
  task: "sum",
  queue: "default",
  retries: 0,
  priority: 100
}

const success: RunOutcome = { _tag: "Success", exit: `{"_tag":"Success","value":1}` }
const failure: RunOutcome = {
  _tag: "Failure",
  exit: `{"_tag":"Failure"}`,
  reason: "Failed",
  errorType: "Failed"
}
const cancelled: RunOutcome = {
  _tag: "Failure",
  exit: `{"_tag":"Failure"}`,
  reason: "Cancelled",
  errorType: "Cancelled"
}
const retry: RunOutcome = {
  _tag: "Retry",
  afterMillis: 1_500,
  failure: {
    reason: new Died({ defect: new Error("no luck") }),
    attempt: 1,
    startedAt: 1_000,
    failedAt: 2_000
  }
}
const release: RunOutcome = { _tag: "Release" }

/** Creates the record of task `a`, and publishes its message. */
const publish = (fixture: MemoryFixture.MemoryFixture, more: Partial<TaskMessage.Head> = {}) =>
  Effect.andThen(
    fixture.create("a"),
    fixture.broker.publish.one({
      id: "a",
      task: "sum",
      queue: "default",
      priority: 100,
      delayMillis: 0,
      body: TaskMessage.encode({ ...head, ...more }, "7")
    })
  )

const request = { queues: ["default"] as const, max: 8, leaseMillis: 60_000, worker: "w1" }

/** Claims the message of task `a`. */
const claim = Effect.fnUntraced(function* (store: RunStore) {
  const [claimed] = yield* store.claim({ ...request, claimId: "c1", isRetry: false }, () => false)
  assert(claimed !== undefined)
  const message = yield* TaskMessage.decode(claimed.delivery.body)
  const candidate: StartCandidate = {
    delivery: claimed.delivery,
    message,
    start: {
      id: "a",
      task: "sum",
      incarnation: "",
      generation: 0,
      token: claimed.run?.token ?? "t1",
      worker: "w1",
      queue: "default",
      body: claimed.delivery.body,
      leaseMillis: 60_000,
      deliveryMode: "at-least-once",
      maxCrashes: 3,
      retentionMillis: undefined,
      deadLetterRetentionMillis: undefined
    }
  }
  return { candidate, run: claimed.run }
})

const end = (
  store: RunStore,
  candidate: StartCandidate,
  outcome: RunOutcome,
  { claimed = true }: { readonly claimed?: boolean } = {}
) =>
  Effect.gen(function* () {
    const settled = yield* toEffect(store.saveOutcome(candidate, outcome))
    yield* toEffect(store.ackOrRelease({ candidate, claimed }, outcome, settled))
    return settled
  })

const counts = ({ broker }: MemoryFixture.MemoryFixture) =>
  Effect.map(broker.counts(["default"]), (found) => withoutAges(found)[0])
const nothing = { ready: 0, delayed: 0, claimed: 0 }

describe("a run store with records, over two stores", () => {
  const make = Effect.gen(function* () {
    const fixture = yield* MemoryFixture.make({ hints: false })
    const store = makeRunStore(fixture.backend, fixture.broker, [])
    yield* publish(fixture)
    const { candidate, run } = yield* claim(store)
    assert.isUndefined(run)
    yield* store.start([candidate])
    const record = Effect.map(fixture.driver.read(["a"]), ([found]) => found)
    return { fixture, store, candidate, record }
  })

  it.effect("has records", () => Effect.map(make, ({ store }) => assert.isTrue(store.hasRecords)))

  it.effect("stores a success in the record and acks its message", () =>
    Effect.gen(function* () {
      const { candidate, fixture, record, store } = yield* make
      assert.strictEqual(yield* end(store, candidate, success), "Stored")
      assert.strictEqual((yield* record)?.state, "SUCCESS")
      assert.deepStrictEqual(yield* counts(fixture), nothing)
    })
  )

  it.effect("stores a failure with its dead letter and acks its message", () =>
    Effect.gen(function* () {
      const { candidate, fixture, record, store } = yield* make
      assert.strictEqual(yield* end(store, candidate, failure), "Stored")
      assert.strictEqual((yield* record)?.state, "FAILURE")
      const [letter] = yield* fixture.driver.listDeadLetters({ limit: 1 })
      assert.strictEqual(letter?.body, candidate.start.body)
      assert.deepStrictEqual(yield* counts(fixture), nothing)
    })
  )

  it.effect("stores a retry and releases its message for the delay", () =>
    Effect.gen(function* () {
      const { candidate, fixture, record, store } = yield* make
      assert.strictEqual(yield* end(store, candidate, retry), "Stored")
      assert.strictEqual((yield* record)?.state, "RETRY")
      const [history] = yield* fixture.driver.readHistory!(["a"])
      assert.include(history, "no luck")
      assert.deepStrictEqual(yield* counts(fixture), { ready: 0, delayed: 1, claimed: 0 })
      yield* advance(1_500)
      assert.deepStrictEqual(yield* counts(fixture), { ready: 1, delayed: 0, claimed: 0 })
    })
  )

  it.effect("publishes the message of a retry again where the claim is no longer held", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make
      yield* fixture.broker.ack.one(candidate.delivery.handle)
      yield* end(store, candidate, retry, { claimed: false })
      const [, envelope] = fixture.items("publish") as ReadonlyArray<object>
      assert.deepInclude(envelope, { id: "a", delayMillis: 1_500, body: candidate.delivery.body })
      assert.strictEqual(fixture.count("release"), 0)
    })
  )

  it.effect("acks the message of a run that a cancel request ended", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make
      yield* fixture.driver.cancel(["a"])
      assert.strictEqual(yield* end(store, candidate, release), "Cancelled")
      assert.deepStrictEqual(yield* counts(fixture), nothing)
    })
  )

  it.effect("leaves the message of a superseded run claimed", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make
      const superseded = { ...candidate, start: { ...candidate.start, token: "t0" } }
      assert.strictEqual(yield* end(store, superseded, success), "Lost")
      assert.deepStrictEqual(yield* counts(fixture), { ready: 0, delayed: 0, claimed: 1 })
    })
  )

  it.effect("renews the record and the claim", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make
      const answers = yield* store.renew([{ candidate, claimed: true }], 60_000)
      assert.deepStrictEqual(answers, ["Held"])
      assert.sameDeepMembers(
        [...fixture.items("renew")],
        [{ id: "a", token: "t1", leaseMillis: 60_000 }, candidate.delivery.handle]
      )
    })
  )

  it.effect("parks a message with its bytes and acks it", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make
      yield* store.parkMessage(candidate.delivery, {
        deadLetterId: "l1",
        reason: "PayloadInvalid",
        exit: "{}"
      })
      assert.deepStrictEqual(fixture.sequence("parkMessage", "ack"), ["parkMessage", "ack"])
      const [letter] = yield* fixture.driver.listDeadLetters({ limit: 1 })
      assert.strictEqual(letter?.body, candidate.delivery.body)
    })
  )
})

describe("a run store with records, over one fused store", () => {
  const make = Effect.gen(function* () {
    const fixture = yield* MemoryFixture.make({ hints: false, fused: true })
    const store = makeRunStore(fixture.backend, fixture.broker, [
      {
        task: "sum",
        leaseMillis: 60_000,
        maxCrashes: 3,
        retentionMillis: undefined,
        deadLetterRetentionMillis: undefined
      }
    ])
    yield* publish(fixture)
    const claimed = yield* claim(store)
    return { fixture, store, ...claimed }
  })

  it.effect("starts what it claims in the same call", () =>
    Effect.gen(function* () {
      const { fixture, run } = yield* make
      assert.strictEqual(run?.started._tag, "Run")
      assert.deepStrictEqual(fixture.sequence("claim", "start"), ["claim"])
    })
  )

  it.effect("settles and acks in one call", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make
      assert.strictEqual(yield* end(store, candidate, success), "Stored")
      assert.deepStrictEqual(fixture.sequence("settle", "ack", "release"), ["settle"])
      assert.deepStrictEqual(yield* counts(fixture), nothing)
    })
  )
})

describe("a run store without records", () => {
  const make = Effect.fnUntraced(function* (more: Partial<TaskMessage.Head> = {}) {
    const fixture = yield* MemoryFixture.make({ hints: false })
    const backend = yield* Effect.provide(Backend.Backend, Backend.layerNotConfigured)
    const store = makeRunStore(backend, fixture.broker, [])
    yield* publish(fixture, more)
    const { candidate } = yield* claim(store)
    return { fixture, store, candidate }
  })

  it.effect("takes attempt and retries from the message", () =>
    Effect.gen(function* () {
      const { candidate, store } = yield* make({ retries: 2 })
      const expected: Started = { _tag: "Run", fence: 3, attempt: 3, retries: 2, crashes: 0 }
      assert.deepStrictEqual(yield* store.start([candidate]), [expected])
    })
  )

  it.effect("drops a message that has waited longer than its expiry", () =>
    Effect.gen(function* () {
      const { candidate, store } = yield* make({ expires: 1_000 })
      const late = { ...candidate, delivery: { ...candidate.delivery, ageMillis: 1_000 } }
      const [first, second] = yield* store.start(Arr.make(candidate, late))
      assert.strictEqual(first?._tag, "Run")
      assert.deepStrictEqual(second, {
        _tag: "Drop",
        ended: { reason: "Expired", attempt: 0, crashes: 0, worker: null }
      })
    })
  )

  for (const [what, outcome, expected] of [
    ["acks the message of a success", success, "ack"],
    ["rejects the message of a failure", failure, "reject"],
    ["acks the message of a cancelled run", cancelled, "ack"],
    ["releases the message of a released run", release, "release"]
  ] as const) {
    it.effect(what, () =>
      Effect.gen(function* () {
        const { candidate, fixture, store } = yield* make()
        assert.strictEqual(yield* end(store, candidate, outcome), "Stored")
        assert.deepStrictEqual(fixture.sequence("ack", "reject", "release", "settle"), [expected])
      })
    )
  }

  it.effect("counts a retry in the released message", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make()
      yield* end(store, candidate, retry)
      assert.deepStrictEqual(yield* counts(fixture), { ready: 0, delayed: 1, claimed: 0 })
      yield* advance(1_500)
      const again = yield* claim(store)
      assert.strictEqual(again.candidate.message.retries, 1)
      assert.strictEqual(again.candidate.message.payload, 7)
    })
  )

  it.effect("renews claims, and answers Held for a message that was acked before its run", () =>
    Effect.gen(function* () {
      const { candidate, fixture, store } = yield* make()
      const holds = [
        { candidate, claimed: false },
        { candidate, claimed: true }
      ] as const
      assert.deepStrictEqual(yield* store.renew(holds, 60_000), ["Held", "Held"])
      yield* fixture.broker.ack.one(candidate.delivery.handle)
      assert.deepStrictEqual(yield* store.renew(holds, 60_000), ["Held", "Lost"])
    })
  )
})
