/** `setAside`: claims by task. */
import { assert, describe, type TestContext } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type { ClaimRequest, Delivery, SetAside } from "../../../BrokerDriver.ts"
import * as Suite from "../Suite.ts"
import { envelope, type Fixture, idsOf, NO_LEASE, NO_ORDER, type Test } from "./fixture.ts"

const NO_SET_ASIDE = "claims of this driver take the messages of every task"

/** A worker that knows some tasks. */
const makeWorker = (t: Fixture, id: string, tasks: ReadonlyArray<string>) => {
  let claims = 0
  const claim = (more?: Partial<ClaimRequest>) =>
    t.driver.claim({
      queues: ["default"],
      max: 100,
      leaseMillis: t.time.long,
      worker: id,
      claimId: `${id}.${++claims}`,
      tasks,
      ...more
    })
  /** Claims until that many messages are claimed. */
  const claimAll = (count: number, more?: Partial<ClaimRequest>) => {
    const found: Array<Delivery> = []
    const all = Effect.map(claim(more), (claimed) => found.push(...claimed) >= count)
    return Effect.as(t.time.eventually(`${count} messages are claimed`, all), found)
  }
  return { claim, claimAll }
}

/** The fixture of a driver that claims by task. */
const makeFixture = (t: Fixture, setAside: SetAside) => ({
  ...t,
  setAside,
  worker: (id: string, tasks: ReadonlyArray<string>) => makeWorker(t, id, tasks),
  /** Publishes messages, in this order, of the tasks with which their ids begin: `mail 1` is of `mail`. */
  send: Effect.fnUntraced(function* (...ids: ReadonlyArray<string>) {
    for (const id of ids) {
      yield* t.publish(id, { task: id.split(" ")[0]! })
      yield* t.time.pass(0.05)
    }
  }),
  /** Claims set-aside messages of a task, which have waited that many units at least. */
  claimSetAside: (task: string, units = 0, max = 100) =>
    setAside.claim({
      queue: "default",
      task,
      minWaitedMillis: t.time.units(units),
      max,
      leaseMillis: t.time.long,
      worker: "ender"
    }),
  /** The names of the tasks that are set aside in a queue. */
  names: (queue = "default") =>
    Effect.map(setAside.tasks([queue]), (found) => found.map(({ task }) => task).toSorted())
})

type SetAsideTest = (
  title: string,
  body: (t: ReturnType<typeof makeFixture>, context: TestContext) => ReturnType<Parameters<Test>[1]>
) => void

/** Registers the tests. */
export const setAside = (register: Test): void => {
  const test: SetAsideTest = (title, body) =>
    register(title, function* (t, context) {
      const { setAside } = t.driver
      if (setAside === undefined) return yield* Suite.skip(context, NO_SET_ASIDE)
      return yield* body(makeFixture(t, setAside), context)
    })

  describe("claims by task", () => {
    claims(test)
    ends(test)
  })
}

const claims = (test: SetAsideTest): void => {
  test("a claim with tasks returns their messages alone, and sets others before them aside", function* (t) {
    yield* t.send("other 1", "mail 1", "another 1", "mail 2")
    const mailer = t.worker("mailer", ["mail", "sms"])
    assert.deepStrictEqual(idsOf(yield* mailer.claimAll(2)), ["mail 1", "mail 2"])
    assert.deepStrictEqual(yield* mailer.claim(), [])
    assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 2, setAside: 2 })
    assert.deepStrictEqual(yield* t.names(), ["another", "other"])
  })

  test("a claim without tasks takes messages of every task, and none that were set aside", function* (t) {
    yield* t.send("other 1", "mail 1")
    yield* t.worker("mailer", ["mail"]).claimAll(1)
    yield* t.send("other 2", "mail 2")
    assert.sameMembers(yield* t.claimIds(), ["other 2", "mail 2"])
  })

  test("a worker that knows no task claims nothing", function* (t) {
    yield* t.send("other 1")
    const idle = t.worker("idle", [])
    assert.deepStrictEqual(yield* idle.claim(), [])
    assert.deepStrictEqual(yield* idle.claim(), [])
    assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 0, setAside: 1 })
  })

  test("a new worker claims at once what was set aside of its tasks, in the order of claims", function* (t, context) {
    if (!t.isOrdered) return yield* Suite.skip(context, NO_ORDER)
    yield* t.send("other 1", "other 2", "another 1")
    yield* t.publish("other high", {
      task: "other",
      priority: Math.min(9, t.driver.capabilities.priorities - 1)
    })
    assert.deepStrictEqual(yield* t.worker("mailer", ["mail"]).claim(), [])
    yield* t.time.pass(0.1)
    yield* t.send("other 3")
    const first = t.driver.capabilities.priorities > 1 ? ["other high"] : []
    const claimed = yield* t.worker("worker", ["other"]).claim()
    assert.deepStrictEqual(idsOf(claimed), [...first, "other 1", "other 2", "other 3"])
    assert.isTrue(claimed.every(({ queue, task }) => queue === "default" && task === "other"))
    assert.deepStrictEqual(yield* t.names(), ["another"])
  })

  test("a running worker claims what another one sets aside of its tasks", function* (t) {
    const mailer = t.worker("mailer", ["mail"])
    const worker = t.worker("worker", ["other"])
    assert.deepStrictEqual(yield* worker.claim(), [])
    for (const n of [1, 2, 3]) {
      yield* t.send(`other ${n}`)
      assert.deepStrictEqual(yield* mailer.claim(), [])
      assert.deepStrictEqual(idsOf(yield* worker.claimAll(1)), [`other ${n}`])
      yield* t.time.pass(2)
    }
    assert.deepStrictEqual(yield* t.names(), [])
  })

  test("a message that was set aside keeps its body, its age, its incarnation and its generation", function* (t) {
    yield* t.publish("a", { task: "other", body: "the body", incarnation: "x1", generation: 3 })
    yield* t.worker("mailer", ["mail"]).claim()
    yield* t.time.pass(2)
    const [delivery] = yield* t.worker("worker", ["other"]).claimAll(1)
    assert(delivery !== undefined)
    const { ageMillis, body, generation, id, incarnation, queue, task } = delivery
    assert.deepStrictEqual(
      { body, generation, id, incarnation, queue, task },
      { body: "the body", generation: 3, id: "a", incarnation: "x1", queue: "default", task: "other" }
    )
    assert.isAtLeast(ageMillis, t.time.units(1.9))
  })

  test("a message that was set aside and claimed is acked, released and renewed as any other", function* (t) {
    yield* t.send("other 1", "other 2")
    yield* t.worker("mailer", ["mail"]).claim()
    const worker = t.worker("worker", ["other"])
    const [first, second] = yield* worker.claimAll(2)
    assert(first !== undefined && second !== undefined)
    assert.isTrue(yield* t.renew(first))
    assert.isTrue(yield* t.ack(first))
    yield* t.release(second, { preserveDueTime: true })
    assert.deepStrictEqual(yield* t.counts, { ready: 1, delayed: 0, claimed: 0 })
    const [again] = yield* worker.claimAll(1)
    assert.strictEqual(again?.id, second.id)
    assert.isAtLeast(again!.ageMillis, second.ageMillis)
    assert.isTrue(yield* t.ack(again!))
    assert.isFalse(yield* t.ack(second))
  })

  test("a claim of a message that was set aside can lapse", function* (t, context) {
    if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
    yield* t.send("other 1")
    yield* t.worker("mailer", ["mail"]).claim()
    yield* t.worker("worker", ["other"]).claimAll(1, { leaseMillis: t.time.units(1) })
    yield* t.time.pass(2)
    assert.deepStrictEqual(idsOf(yield* t.worker("a third", ["other"]).claimAll(1)), ["other 1"])
  })

  test("whatever becomes of a lapsed claim of a message that is set aside, a worker gets the message", function* (t, context) {
    if (!t.hasLeases) return yield* Suite.skip(context, NO_LEASE)
    yield* t.send("other 1", "other 2", "other 3")
    const slow = t.worker("slow", ["other"])
    const [one, two, three] = yield* slow.claimAll(3, { leaseMillis: t.time.units(1) })
    assert(one !== undefined && two !== undefined && three !== undefined)
    yield* t.time.pass(2)
    assert.deepStrictEqual(yield* t.worker("mailer", ["mail"]).claim(), [])
    yield* t.release(one, { afterMillis: t.time.units(1) })
    yield* t.driver.renew([two.handle], t.time.units(1))
    yield* t.time.pass(2)
    assert.sameMembers(idsOf(yield* t.worker("a third", ["other"]).claimAll(3)), [
      "other 1",
      "other 2",
      "other 3"
    ])
  })

  test("a message is set aside in its own queue", function* (t) {
    const queues = ["x", "y", "x:y"] as const
    for (const queue of queues) yield* t.publish(`of ${queue}`, { task: "other", queue })
    yield* t.worker("mailer", ["mail"]).claim({ queues })
    for (const queue of queues) assert.deepStrictEqual(yield* t.names(queue), ["other"])
    const found = yield* t.worker("worker", ["other"]).claim({ queues: ["y"] })
    assert.deepStrictEqual(idsOf(found), ["of y"])
    assert.deepStrictEqual(
      (yield* t.setAside.tasks(["x:y", "y", "x"])).map(({ queue }) => queue).toSorted(),
      ["x", "x:y"]
    )
  })

  test("a task is found behind thousands of messages of others", function* (t) {
    const count = 12_000
    for (const ids of Arr.chunksOf(Arr.range(1, count), 1000)) {
      yield* t.driver.publish(Arr.map(ids, (n) => envelope(`other ${n}`, { task: `other${n % 3}` })))
    }
    yield* t.send("mail 1")
    const mailer = t.worker("mailer", ["mail"])
    assert.deepStrictEqual(idsOf(yield* mailer.claimAll(1, { max: 10 })), ["mail 1"])
    yield* t.time.eventually(
      "all others are set aside",
      Effect.andThen(
        mailer.claim(),
        Effect.map(t.counts, ({ setAside }) => setAside === count)
      )
    )
    const worker = t.worker("worker", ["other0", "other1", "other2"])
    assert.strictEqual(new Set(idsOf(yield* worker.claimAll(count, { max: 1000 }))).size, count)
  })

  test("names that contain, precede or resemble each other are distinguished", function* (t) {
    const names = ["mail", "mai", "mail2", "mail.send", "MAIL", "mäil", "mail\u0001x", "x:mail", "mail "]
    for (const [n, task] of names.entries()) yield* t.publish(`id ${n}`, { task })
    assert.deepStrictEqual(idsOf(yield* t.worker("mailer", ["mail"]).claimAll(1)), ["id 0"])
    for (const [n, task] of names.entries()) {
      if (n > 0) assert.deepStrictEqual(idsOf(yield* t.worker(`worker ${n}`, [task]).claim()), [`id ${n}`])
    }
  })

  test("a task with a name of 250 characters keeps no other from a worker, and is claimed by its own", function* (t) {
    const task = "x".repeat(250)
    yield* t.publish("long", { task })
    yield* t.send("mail 1")
    // where the store cannot set it aside, it comes with the others
    for (const delivery of yield* t.worker("mailer", ["mail"]).claimAll(1)) {
      if (delivery.task === task) yield* t.release(delivery)
      else assert.strictEqual(delivery.id, "mail 1")
    }
    assert.deepStrictEqual(yield* t.counts.pipe(Effect.map(({ claimed }) => claimed)), 1)
    assert.deepStrictEqual(idsOf(yield* t.worker("worker", [task]).claimAll(1)), ["long"])
  })

  test("delayed messages of other tasks are set aside when they are due", function* (t) {
    yield* t.publish("other 1", { task: "other", delayMillis: t.time.units(1) })
    const mailer = t.worker("mailer", ["mail"])
    assert.deepStrictEqual(yield* mailer.claim(), [])
    assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 1, claimed: 0 })
    yield* t.time.eventually(
      "it is set aside",
      Effect.andThen(
        mailer.claim(),
        Effect.map(t.counts, ({ setAside }) => setAside === 1)
      )
    )
    assert.deepStrictEqual(idsOf(yield* t.worker("worker", ["other"]).claim()), ["other 1"])
  })

  test("a claim that is repeated returns no message of another task", function* (t, context) {
    if (t.driver.capabilities.repeatableClaims !== true)
      return yield* Suite.skip(context, "no claim is repeated")
    yield* t.send("other 1", "mail 1", "other 2")
    const mailer = t.worker("mailer", ["mail"])
    const first = yield* mailer.claim({ claimId: "one" })
    const again = yield* mailer.claim({ claimId: "one", isRetry: true })
    assert.deepStrictEqual(idsOf(again), ["mail 1"])
    assert.deepStrictEqual(
      first.slice(0, 1).map(({ handle }) => handle),
      [again[0]!.handle]
    )
  })

  test("concurrent claims of different workers give each its messages once", function* (t) {
    const tasks = ["a", "b", "c", "d"]
    yield* t.driver.publish(Arr.makeBy(400, (n) => envelope(`id ${n}`, { task: tasks[n % 4]! })))
    const claimed = yield* Effect.forEach(tasks, (task) => t.worker(task, [task]).claimAll(100, { max: 7 }), {
      concurrency: "unbounded"
    })
    assert.deepStrictEqual(
      claimed.map((mine) => new Set(mine.map(({ task }) => task)).size),
      [1, 1, 1, 1]
    )
    assert.strictEqual(new Set(claimed.flatMap(idsOf)).size, 400)
    assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 400 })
  })
}

const ends = (test: SetAsideTest): void => {
  test("the tasks that were set aside are listed with the longest wait", function* (t) {
    yield* t.send("other 1")
    yield* t.time.pass(2)
    yield* t.send("other 2", "another 1")
    yield* t.worker("mailer", ["mail"]).claim()
    const found = yield* t.setAside.tasks(["default", "nobody"])
    const waits = new Map(found.map(({ queue, task, waitedMillis }) => [`${task} of ${queue}`, waitedMillis]))
    assert.sameMembers([...waits.keys()], ["other of default", "another of default"])
    assert.isAtLeast(waits.get("other of default")!, t.time.units(2))
    assert.isBelow(waits.get("another of default")!, waits.get("other of default")!)
  })

  test("the longest wait is found behind messages of a higher priority", function* (t, context) {
    if (t.driver.capabilities.priorities < 256)
      return yield* Suite.skip(context, "there are fewer priorities")
    yield* t.publish("low", { task: "other", priority: 3 })
    yield* t.time.pass(5)
    for (const priority of [200, 100, 99]) yield* t.publish(`${priority}`, { task: "other", priority })
    yield* t.worker("mailer", ["mail"]).claim()
    const [found] = yield* t.setAside.tasks(["default"])
    assert.isAtLeast(found!.waitedMillis, t.time.units(5))
    assert.deepStrictEqual(idsOf(yield* t.claimSetAside("other", 4)), ["low"])
  })

  test("messages that were set aside are claimed by their task and their wait", function* (t) {
    yield* t.send("other 1", "other 2", "another 1")
    yield* t.worker("mailer", ["mail"]).claim()
    yield* t.time.pass(5)
    yield* t.send("other 3")
    yield* t.worker("a second", ["mail"]).claim()
    assert.deepStrictEqual(yield* t.claimSetAside("nothing"), [])
    const [first, ...others] = yield* t.claimSetAside("other", 4, 1)
    const [second, ...none] = yield* t.claimSetAside("other", 4)
    assert.deepStrictEqual([others, none], [[], []])
    assert.sameMembers([first?.id, second?.id], ["other 1", "other 2"])
    assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 2, setAside: 2 })
    assert.isTrue(yield* t.ack(second!))
    assert.deepStrictEqual(idsOf(yield* t.claimSetAside("other")), ["other 3"])
    assert.deepStrictEqual(yield* t.names(), ["another"])
  })

  test("a purge removes messages that were set aside", function* (t) {
    yield* t.send("other 1", "another 1", "mail 1")
    yield* t.publish("elsewhere", { task: "other", queue: "elsewhere" })
    const mailer = t.worker("mailer", ["mail"])
    yield* mailer.claim({ queues: ["default", "elsewhere"] })
    yield* t.send("other 2")
    const purged = yield* Effect.replicateEffect(t.driver.purge("default", 2), 3)
    assert.deepStrictEqual(
      purged.map((ids) => ids.length),
      [2, 1, 0]
    )
    assert.sameMembers(
      purged.flat().map(({ id }) => id),
      ["other 1", "another 1", "other 2"]
    )
    assert.deepStrictEqual(yield* t.counts, { ready: 0, delayed: 0, claimed: 1 })
    assert.deepStrictEqual(yield* t.names("elsewhere"), ["other"])
  })
}
