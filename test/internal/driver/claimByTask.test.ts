/** Claims by task over a store whose answers each test prepares. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { ClaimRequest, Delivery } from "../../../src/BrokerDriver.ts"
import { makeClaimByTask } from "../../../src/internal/driver/claimByTask.ts"
import type { Lane } from "../../../src/internal/driver/lanes.ts"
import { Outages } from "../../../src/internal/driver/Outages.ts"
import { captureLogs } from "../../../src/testing/suites/worker/captureLogs.ts"

const deliveryOf = (id: string, queue = "q"): Delivery => ({
  handle: id,
  id,
  task: id.split(" ")[0]!,
  incarnation: "",
  generation: 0,
  queue,
  ageMillis: 0,
  body: ""
})

const tasks = ["mail"]
const request: ClaimRequest = { queues: ["q", "r"], max: 10, leaseMillis: 1000, worker: "w", tasks }

/** A store that records its calls and returns prepared answers. */
const makeStore = () => {
  const calls: Array<string> = []
  const answers = {
    /** The ids of what a claim takes from queues. */
    found: [] as ReadonlyArray<string>,
    /** The ids of what a claim takes from lanes. */
    inLanes: [] as ReadonlyArray<string>,
    lanes: [] as ReadonlyArray<Lane>,
    moved: [] as ReadonlyArray<Lane>,
    isBlocked: false,
    /** The calls that fail. */
    failing: new Set<string>()
  }
  const noted = <A>(call: string, answer: () => A) =>
    Effect.suspend(() => {
      calls.push(call)
      return answers.failing.has(call) ? Effect.fail("away" as const) : Effect.sync(answer)
    })
  // an id may name its queue
  const take = (ids: ReadonlyArray<string>, max: number) =>
    ids.slice(0, max).map((id) => deliveryOf(id, id.split(" of ")[1]))
  const nameOf = ({ queue, task }: Lane) => `${task} of ${queue}`
  const claim = makeClaimByTask<ClaimRequest, Delivery, "away">(
    {
      canExist: ({ task }) => task !== "tooLong",
      find: () => noted("find", () => answers.lanes),
      setAside: (queue, _, claimed) =>
        noted(`set aside ${[queue, ...claimed.map(({ id }) => id)].join(", ")}`, () => answers.isBlocked),
      moveOwn: (queue) => noted(`move of ${queue}`, () => answers.moved)
    },
    {
      claim: ({ max, queues }) => noted(`claim ${queues.join(", ")}`, () => take(answers.found, max)),
      claimLanes: ({ max }, lanes) =>
        noted(`claim ${lanes.map(nameOf).join(", ")}`, () => take(answers.inLanes, max)),
      deliveryOf: (delivery) => delivery,
      wakeAgain: (queues) => calls.push(`wake ${queues.join(", ")}`),
      outages: new Outages("store")
    }
  )
  return Object.assign(answers, { claim, takeCalls: () => calls.splice(0) })
}

const idsOf = (claimed: ReadonlyArray<Delivery>) => claimed.map(({ id }) => id)

describe("claims by task", () => {
  it.effect(
    "a worker that knows every task of its queues looks for lanes once a second, and does nothing else",
    () =>
      Effect.gen(function* () {
        const store = makeStore()
        store.found = ["mail 1", "mail 2"]
        for (let i = 0; i < 3; i++) {
          assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1", "mail 2"])
        }
        assert.deepStrictEqual(store.takeCalls(), ["find", "claim q, r", "claim q, r", "claim q, r"])
        yield* TestClock.adjust("1 second")
        yield* store.claim(request)
        assert.deepStrictEqual(store.takeCalls(), ["find", "claim q, r"])
      })
  )

  it.effect("a claim without tasks passes by all of it", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      const found = yield* store.claim({ ...request, tasks: undefined })
      assert.deepStrictEqual(idsOf(found), ["other 1"])
      assert.deepStrictEqual(store.takeCalls(), ["claim q, r"])
    })
  )

  it.effect("messages of other tasks are set aside and not returned", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1", "mail 1", "other 2"]
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), [
        "find",
        "claim q, r",
        "set aside q, other 1, other 2",
        "wake q"
      ])
    })
  )

  it.effect("messages that cannot be set aside are returned to the worker, which puts them back", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["tooLong 1"]
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["tooLong 1"])
      store.found = ["other 1", "mail 1"]
      store.failing.add("set aside q, other 1")
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["other 1", "mail 1"])
    })
  )

  it.effect("while a queue is blocked, a claim goes on setting aside, and takes from its lanes", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      store.isBlocked = true
      store.moved = [{ queue: "q", task: "mail" }]
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), [
        "find",
        "claim q, r",
        "set aside q, other 1",
        "move of q",
        "wake q, q"
      ])
      store.found = []
      store.inLanes = ["mail 1"]
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), ["set aside q", "claim mail of q", "claim r", "wake q"])
      store.isBlocked = false
      store.found = ["mail 2"]
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 2", "mail 1"])
      assert.deepStrictEqual(store.takeCalls(), ["set aside q", "claim q, r", "claim mail of q", "wake q"])
      yield* TestClock.adjust("1 second")
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), ["find", "claim q, r"])
    })
  )

  it.effect("a blocked queue from which nothing can be set aside any more is claimed from again", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      store.isBlocked = true
      yield* store.claim(request)
      store.found = ["mail 1"]
      store.failing.add("set aside q")
      store.takeCalls()
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), ["set aside q", "claim q, r"])
    })
  )

  it.effect(
    "the worker's own messages are moved from behind others, although those cannot be set aside",
    () =>
      Effect.gen(function* () {
        const store = makeStore()
        store.found = ["other 1"]
        store.isBlocked = true
        yield* store.claim(request)
        store.failing.add("set aside q").add("set aside q, other 1")
        store.moved = [{ queue: "q", task: "mail" }]
        store.inLanes = ["mail 1"]
        for (let second = 0; second < 3; second++) {
          yield* TestClock.adjust("1 second")
          store.takeCalls()
          assert.include(idsOf(yield* store.claim(request)), "mail 1")
          assert.include(store.takeCalls(), "move of q")
          // the next look finds the lane
          store.lanes = store.moved
        }
      })
  )

  it.effect("what is set aside of one queue is not returned, although another queue's cannot be", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1", "other 2 of r", "mail 1"]
      store.failing.add("set aside q, other 1")
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["other 1", "mail 1"])
      assert.deepStrictEqual(store.takeCalls(), [
        "find",
        "claim q, r",
        "set aside q, other 1",
        "set aside r, other 2 of r",
        "move of q",
        "wake r"
      ])
    })
  )

  it.effect(
    "a store that cannot set messages aside is logged after 30 seconds, and when it can again",
    () => {
      const logs = captureLogs()
      return Effect.gen(function* () {
        const store = makeStore()
        store.found = ["other 1"]
        store.failing.add("set aside q, other 1")
        for (let second = 0; second < 40; second++) {
          yield* store.claim(request)
          yield* TestClock.adjust("1 second")
        }
        store.failing.clear()
        yield* store.claim(request)
        assert.deepStrictEqual(logs.texts("Warn"), [
          "Failed to set messages of other tasks aside for 30.0 s; trying again"
        ])
        assert.deepStrictEqual(logs.texts("Info"), [
          "Recovered after 40.0 s of failures to set messages of other tasks aside"
        ])
      }).pipe(logs.capture)
    }
  )

  it.effect("messages are moved from behind others once a second", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      store.isBlocked = true
      yield* store.claim(request)
      store.found = []
      yield* store.claim(request)
      const moves = (calls: ReadonlyArray<string>) => calls.filter((call) => call === "move of q").length
      assert.strictEqual(moves(store.takeCalls()), 1)
      yield* TestClock.adjust("1 second")
      yield* store.claim(request)
      assert.strictEqual(moves(store.takeCalls()), 1)
    })
  )

  it.effect("lanes and queues take turns, so that neither keeps a worker with one slot from the other", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.lanes = [{ queue: "r", task: "mail" }]
      store.found = ["mail 1"]
      store.inLanes = ["mail 2"]
      const claimOne = store.claim({ ...request, max: 1 })
      assert.deepStrictEqual(idsOf(yield* claimOne), ["mail 2"])
      assert.deepStrictEqual(idsOf(yield* claimOne), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), ["find", "claim mail of r", "wake r", "claim q, r", "wake r"])
    })
  )

  it.effect("what was claimed first is returned although the rest fails", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.lanes = [{ queue: "r", task: "mail" }]
      store.inLanes = ["mail 2"]
      store.failing.add("claim q, r")
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 2"])
    })
  )

  it.effect("a look for lanes that fails keeps no message from a worker", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["mail 1"]
      store.failing.add("find")
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1"])
      store.failing.clear()
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), ["find", "claim q, r", "find", "claim q, r"])
    })
  )

  it.effect("a repeated claim asks for what it took, and for no lane", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.lanes = [{ queue: "q", task: "mail" }]
      store.found = ["mail 1"]
      assert.deepStrictEqual(idsOf(yield* store.claim({ ...request, isRetry: true })), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), ["find", "claim q, r"])
    })
  )
})
