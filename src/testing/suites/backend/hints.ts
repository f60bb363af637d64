/** Reads, and the hints that ask for one. */
import { assert, describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as Suite from "../Suite.ts"
import { record, success, retry, type Fixture, type Test } from "./fixture.ts"

/** Registers these tests. */
export const hints = (test: Test): void => {
  describe("reads and hints", () => {
    test("a batch is read in order, unknown ids and doubles too", function* (t) {
      yield* t.driver.create([record("a"), record("b")])
      const found = yield* t.driver.read(["b", "nobody", "a", "b"])
      assert.deepStrictEqual(
        found.map((one) => one?.id),
        ["b", undefined, "a", "b"]
      )
    })

    test("a watch reads", function* (t) {
      yield* t.create("a")
      const before = yield* t.read("a")
      assert.deepStrictEqual(yield* t.driver.subscribe(["a", "nobody"]), [before, undefined])
    })

    test("watching and leaving are safe to repeat", function* (t) {
      yield* t.create("a")
      yield* t.driver.subscribe(["a", "a"])
      yield* t.driver.subscribe(["a"])
      yield* t.driver.unsubscribe(["a", "a", "nobody"])
      yield* t.driver.unsubscribe(["a"])
    })

    /** Follows the hints. What is made of it makes a change, and expects a hint of the id since. */
    const follow = Effect.fnUntraced(function* (t: Fixture) {
      const heard = new Set<string>()
      let all = false
      yield* Stream.runForEach(t.driver.hints ?? Stream.empty, (hint) =>
        Effect.sync(() => {
          if (hint === "resync") all = true
          else for (const id of hint) heard.add(id)
        })
      ).pipe(Effect.forkScoped)
      // the stream may take its time to begin: a change is repeated until it is heard of
      yield* t.create("probe")
      yield* t.driver.subscribe(["probe"])
      yield* t.startRun("probe", "t1")
      let changes = 0
      yield* t.time.eventually(
        "a change of a watched task is hinted",
        Effect.suspend(() => Effect.as(t.renew("probe", "t1", `${changes++}`), all || heard.has("probe")))
      )
      return Effect.fnUntraced(function* (id: string, change: Effect.Effect<unknown, unknown>) {
        all = false
        heard.clear()
        yield* change
        yield* t.time.eventually(
          `a change of ${id} is hinted`,
          Effect.sync(() => all || heard.has(id))
        )
      })
    })

    const hinted = (title: string, change: (t: Fixture) => Effect.Effect<unknown, unknown>): void =>
      test(title, function* (t, context) {
        if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
        const expectHint = yield* follow(t)
        yield* t.create("a")
        yield* t.startRun("a", "t1")
        yield* t.driver.subscribe(["a"])
        yield* expectHint("a", change(t))
      })

    hinted("the end of a watched task is hinted", (t) => t.settleRun("a", "t1", success()))
    hinted("a retry of a watched task is hinted", (t) => t.settleRun("a", "t1", retry()))
    hinted("progress of a watched task is hinted", (t) => t.renew("a", "t1", "progress"))
    hinted("a watched task that is forgotten is hinted", (t) => t.driver.forget(["a"]))

    test("a watched task that starts is hinted", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(t)
      yield* t.create("a")
      yield* t.driver.subscribe(["a"])
      yield* expectHint("a", t.startRun("a", "t1"))
    })

    test("whoever watches for the end is told of it, and of all changes once he asks for them", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(t)
      yield* t.create("a")
      yield* t.create("b")
      yield* t.driver.subscribe(["a", "b"], "end")
      yield* t.startRun("a", "t1")
      yield* expectHint("a", t.settleRun("a", "t1", success()))
      yield* t.driver.subscribe(["b"])
      yield* expectHint("b", t.startRun("b", "t2"))
      yield* t.driver.subscribe(["b"], "end")
      yield* expectHint("b", t.renew("b", "t2", "progress"))
      yield* expectHint("b", t.settleRun("b", "t2", success()))
    })

    test("a task that is watched before it is there is hinted when it has come, and when it ends", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(t)
      yield* t.driver.subscribe(["a"])
      yield* expectHint("a", t.create("a"))
      yield* t.driver.subscribe(["b", "c"], "end")
      yield* t.driver.unsubscribe(["c"])
      yield* t.create("b")
      yield* t.startRun("b", "t1")
      yield* expectHint("b", t.settleRun("b", "t1", success()))
    })

    test("a cancel request is hinted without a watch", function* (t, context) {
      if (!t.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(t)
      yield* t.create("a")
      yield* t.startRun("a", "t1")
      yield* expectHint("a", t.cancel("a"))
    })

    test("a driver gives hints exactly if it says so", function* (t) {
      yield* t.driver.unsubscribe(["nobody"])
      assert.strictEqual(t.driver.hints !== undefined, t.driver.capabilities.hints)
    })
  })
}
