/** Reads, and the hints that ask for one. */
import { assert, describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as Suite from "../Suite.ts"
import { record, success, retry, type Subject, type Test } from "./fixture.ts"

/** Registers these tests. */
export const hints = (test: Test): void => {
  describe("reads and hints", () => {
    test("a batch is read in order, unknown ids and doubles too", function* (on) {
      yield* on.driver.create([record("a"), record("b")])
      const found = yield* on.driver.read(["b", "nobody", "a", "b"])
      assert.deepStrictEqual(
        found.map((one) => one?.id),
        ["b", undefined, "a", "b"]
      )
    })

    test("a watch reads", function* (on) {
      yield* on.create("a")
      const before = yield* on.read("a")
      assert.deepStrictEqual(yield* on.driver.subscribe(["a", "nobody"]), [before, undefined])
    })

    test("watching and leaving are safe to repeat", function* (on) {
      yield* on.create("a")
      yield* on.driver.subscribe(["a", "a"])
      yield* on.driver.subscribe(["a"])
      yield* on.driver.unsubscribe(["a", "a", "nobody"])
      yield* on.driver.unsubscribe(["a"])
    })

    /** Follows the hints. What is made of it makes a change, and expects a hint of the id since. */
    const follow = Effect.fnUntraced(function* (on: Subject) {
      const heard = new Set<string>()
      let all = false
      yield* Stream.runForEach(on.driver.hints ?? Stream.empty, (hint) =>
        Effect.sync(() => {
          if (hint === "resync") all = true
          else for (const id of hint) heard.add(id)
        })
      ).pipe(Effect.forkScoped)
      // the stream may take its time to begin: a change is repeated until it is heard of
      yield* on.create("probe")
      yield* on.driver.subscribe(["probe"])
      yield* on.run("probe", "t1")
      let changes = 0
      yield* on.time.eventually(
        "a change of a watched task is hinted",
        Effect.suspend(() => Effect.as(on.renew("probe", "t1", `${changes++}`), all || heard.has("probe")))
      )
      return Effect.fnUntraced(function* (id: string, change: Effect.Effect<unknown, unknown>) {
        all = false
        heard.clear()
        yield* change
        yield* on.time.eventually(
          `a change of ${id} is hinted`,
          Effect.sync(() => all || heard.has(id))
        )
      })
    })

    const hinted = (title: string, change: (on: Subject) => Effect.Effect<unknown, unknown>): void =>
      test(title, function* (on, context) {
        if (!on.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
        const expectHint = yield* follow(on)
        yield* on.create("a")
        yield* on.run("a", "t1")
        yield* on.driver.subscribe(["a"])
        yield* expectHint("a", change(on))
      })

    hinted("the end of a watched task is hinted", (on) => on.end("a", "t1", success()))
    hinted("a retry of a watched task is hinted", (on) => on.end("a", "t1", retry()))
    hinted("progress of a watched task is hinted", (on) => on.renew("a", "t1", "progress"))
    hinted("a watched task that is forgotten is hinted", (on) => on.driver.forget(["a"]))

    test("a watched task that starts is hinted", function* (on, context) {
      if (!on.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(on)
      yield* on.create("a")
      yield* on.driver.subscribe(["a"])
      yield* expectHint("a", on.run("a", "t1"))
    })

    test("whoever watches for the end is told of it, and of all changes once he asks for them", function* (on, context) {
      if (!on.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(on)
      yield* on.create("a")
      yield* on.create("b")
      yield* on.driver.subscribe(["a", "b"], "end")
      yield* on.run("a", "t1")
      yield* expectHint("a", on.end("a", "t1", success()))
      yield* on.driver.subscribe(["b"])
      yield* expectHint("b", on.run("b", "t2"))
      yield* on.driver.subscribe(["b"], "end")
      yield* expectHint("b", on.renew("b", "t2", "progress"))
      yield* expectHint("b", on.end("b", "t2", success()))
    })

    test("a task that is watched before it is there is hinted when it has come, and when it ends", function* (on, context) {
      if (!on.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(on)
      yield* on.driver.subscribe(["a"])
      yield* expectHint("a", on.create("a"))
      yield* on.driver.subscribe(["b", "c"], "end")
      yield* on.driver.unsubscribe(["c"])
      yield* on.create("b")
      yield* on.run("b", "t1")
      yield* expectHint("b", on.end("b", "t1", success()))
    })

    test("a cancel request is hinted without a watch", function* (on, context) {
      if (!on.driver.capabilities.hints) return yield* Suite.skip(context, "the driver gives no hints")
      const expectHint = yield* follow(on)
      yield* on.create("a")
      yield* on.run("a", "t1")
      yield* expectHint("a", on.cancel("a"))
    })

    test("a driver gives hints exactly if it says so", function* (on) {
      yield* on.driver.unsubscribe(["nobody"])
      assert.strictEqual(on.driver.hints !== undefined, on.driver.capabilities.hints)
    })
  })
}
