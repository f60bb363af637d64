/** Claims by task over a store of which the tests play every answer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { ClaimRequest, Delivery } from "../../../src/BrokerDriver.ts"
import { makeClaimByTask } from "../../../src/internal/driver/claimByTask.ts"
import type { Lane } from "../../../src/internal/driver/lanes.ts"

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

/** A store that notes its calls, and answers as it is told. */
const makeStore = () => {
  const calls: Array<string> = []
  const answers = {
    /** The ids of what a claim takes. */
    found: [] as ReadonlyArray<string>,
    lanes: [] as ReadonlyArray<Lane>,
    brought: [] as ReadonlyArray<Lane>,
    isBlocked: false
  }
  const noted = <A>(call: string, answer: () => A) =>
    Effect.sync(() => {
      calls.push(call)
      return answer()
    })
  const take = () => answers.found.map((id) => deliveryOf(id))
  const claim = makeClaimByTask<ClaimRequest, Delivery, never>(
    {
      canExist: ({ task }) => task !== "tooLong",
      list: () => noted("list", () => answers.lanes),
      setAside: (queue, _, claimed) =>
        noted(`set aside ${[queue, ...claimed.map(({ id }) => id)].join(", ")}`, () => answers.isBlocked),
      bring: (queue) => noted(`bring ${queue}`, () => answers.brought)
    },
    {
      claim: () => noted("claim", take),
      claimAround: (_, queues, lanes) =>
        noted(
          `claim ${[...queues, ...lanes.map(({ queue, task }) => `${task} of ${queue}`)].join(", ")}`,
          take
        ),
      deliveryOf: (delivery) => delivery,
      wakeAgain: (queues) => calls.push(`wake ${queues.join(", ")}`)
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
        for (let i = 0; i < 3; i++)
          assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1", "mail 2"])
        assert.deepStrictEqual(store.takeCalls(), ["list", "claim", "claim", "claim"])
        yield* TestClock.adjust("1 second")
        yield* store.claim(request)
        assert.deepStrictEqual(store.takeCalls(), ["list", "claim"])
      })
  )

  it.effect("a claim without tasks passes by all of it", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      const found = yield* store.claim({ ...request, tasks: undefined })
      assert.deepStrictEqual(idsOf(found), ["other 1"])
      assert.deepStrictEqual(store.takeCalls(), ["claim"])
    })
  )

  it.effect("messages of other tasks are set aside and not returned", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1", "mail 1", "other 2"]
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), [
        "list",
        "claim",
        "set aside q, other 1, other 2",
        "wake q, r"
      ])
    })
  )

  it.effect("a message that no lane can hold is returned to the worker, which puts it back", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["tooLong 1"]
      assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["tooLong 1"])
      assert.deepStrictEqual(store.takeCalls(), ["list", "claim"])
    })
  )

  it.effect("while a queue is blocked, a claim goes on setting aside, and takes from its lanes", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      store.isBlocked = true
      store.brought = [{ queue: "q", task: "mail" }]
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), [
        "list",
        "claim",
        "set aside q, other 1",
        "bring q",
        "wake q, r"
      ])
      store.found = ["mail 1"]
      for (let i = 0; i < 2; i++) {
        assert.deepStrictEqual(idsOf(yield* store.claim(request)), ["mail 1"])
        assert.deepStrictEqual(store.takeCalls(), ["set aside q", "claim r, mail of q", "wake q, r"])
      }
      store.isBlocked = false
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), ["set aside q", "claim q, r, mail of q", "wake q, r"])
      yield* TestClock.adjust("1 second")
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), ["list", "claim"])
    })
  )

  it.effect("messages are brought from behind others once a second", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.found = ["other 1"]
      store.isBlocked = true
      yield* store.claim(request)
      store.found = []
      yield* store.claim(request)
      const bring = (calls: ReadonlyArray<string>) => calls.filter((call) => call === "bring q").length
      assert.strictEqual(bring(store.takeCalls()), 1)
      yield* TestClock.adjust("1 second")
      yield* store.claim(request)
      assert.strictEqual(bring(store.takeCalls()), 1)
    })
  )

  it.effect("lanes of other tasks are left to workers that know them", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.lanes = [
        { queue: "q", task: "other" },
        { queue: "r", task: "mail" }
      ]
      yield* store.claim(request)
      assert.deepStrictEqual(store.takeCalls(), ["list", "claim q, r, mail of r"])
    })
  )

  it.effect("a repeated claim asks for what it took, and for no lane", () =>
    Effect.gen(function* () {
      const store = makeStore()
      store.lanes = [{ queue: "q", task: "mail" }]
      store.found = ["mail 1"]
      assert.deepStrictEqual(idsOf(yield* store.claim({ ...request, isRetry: true })), ["mail 1"])
      assert.deepStrictEqual(store.takeCalls(), ["list", "claim"])
    })
  )
})
