import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Queue, Scope, Stream } from "effect"
import type { Hint, TaskRecord } from "../../../src/BackendDriver.ts"
import { Outages } from "../../../src/internal/driver/Outages.ts"
import * as Subscriptions from "../../../src/internal/driver/Subscriptions.ts"
import { advance, flush } from "../../support/memoryFixture.ts"

const maxBatch = 10

const record = (id: string, state: TaskRecord["state"]): TaskRecord => ({
  id,
  task: "sum",
  state,
  incarnation: "",
  generation: 0,
  attempt: 0,
  retries: 0,
  crashes: 0,
  exit: null,
  progress: null,
  worker: null,
  cancelRequested: false,
  ended: null,
  enqueuedAt: 0,
  startedAt: null,
  finishedAt: null,
  expiresAt: null
})

type Operation = "subscribe" | "read" | "unsubscribe"

/** Subscriptions over a scripted store, with the ids of each call. */
const make = Effect.fnUntraced(function* (options?: {
  readonly callMillis?: number | undefined
  /** Records that an answer has at most. */
  readonly maxRecords?: number | undefined
}) {
  const calls: Array<readonly [operation: Operation, ids: ReadonlyArray<string>]> = []
  const states = new Map<string, TaskRecord["state"]>()
  const failing = new Set<Operation>()
  const hints = yield* Queue.unbounded<ReadonlyArray<Hint> | "resync" | "gone">()
  const call = (operation: Operation) => (ids: ReadonlyArray<string>) =>
    Effect.suspend(() => {
      calls.push([operation, ids])
      if (failing.has(operation)) return Effect.fail("cut off")
      const records = ids.slice(0, options?.maxRecords).map((id) => record(id, states.get(id) ?? "PENDING"))
      return options?.callMillis === undefined
        ? Effect.succeed(records)
        : Effect.as(Effect.sleep(options.callMillis), records)
    })
  const registered: Array<readonly [id: string, until: Subscriptions.Until]> = []
  const interest = yield* Subscriptions.make<string>({
    subscribe: (ids, until) => {
      for (const id of ids) registered.push([id, until])
      return call("subscribe")(ids)
    },
    read: call("read"),
    unsubscribe: call("unsubscribe"),
    hints: Stream.mapEffect(Stream.fromQueue(hints), (hint) =>
      hint === "gone" ? Effect.fail("gone") : Effect.succeed(hint)
    ),
    outages: new Outages("test"),
    isPermanent: () => false,
    toClosedError: () => "closed",
    subscribesCreated: true,
    sweepInterval: Duration.seconds(5),
    maxBatch,
    onSubscribers: () => undefined
  })
  const seen: Array<string> = []
  const errors: Array<string> = []
  return {
    interest,
    registered,
    states,
    failing,
    seen,
    errors,
    hint: (hint: ReadonlyArray<Hint> | "resync" | "gone") => Effect.andThen(Queue.offer(hints, hint), flush),
    listen: (...ids: ReadonlyArray<string>) => {
      const subscription = interest.subscribe(ids, {
        waitsFor: "end",
        onRecord: (id) => void seen.push(id),
        onError: (error) => void errors.push(error)
      })
      return () => subscription.end()
    },
    /** Takes the ids of an operation's calls since the last time. */
    taken: (operation: Operation): ReadonlyArray<ReadonlyArray<string>> => {
      const taken = calls.filter(([name]) => name === operation).map(([, ids]) => ids)
      calls.splice(0, calls.length, ...calls.filter(([name]) => name !== operation))
      return taken
    },
    forgetCalls: () => void calls.splice(0)
  }
})

const named = (count: number) => Array.from({ length: count }, (_, i) => `task ${i}`)

describe("the sweep", () => {
  for (const count of [1, maxBatch, 25 * maxBatch]) {
    it.effect("subscribes for every change only where a listener needs it", () =>
      Effect.gen(function* () {
        const { interest, registered } = yield* make()
        const listener = { onRecord: () => undefined, onError: () => undefined }
        interest.subscribe(["a", "b"], { ...listener, waitsFor: "end" })
        interest.subscribe(["c"], { ...listener, waitsFor: "change" })
        yield* flush
        assert.sameDeepMembers(registered, [
          ["a", "end"],
          ["b", "end"],
          ["c", "change"]
        ])
      })
    )

    it.effect(`makes one call at each interval while ${count} tasks are subscribed`, () =>
      Effect.gen(function* () {
        const on = yield* make()
        for (const id of named(count)) on.listen(id)
        yield* flush
        on.forgetCalls()
        yield* advance("1 minute")
        const reads = on.taken("read")
        assert.lengthOf(reads, 12)
        for (const ids of reads) assert.lengthOf(ids, Math.min(count, maxBatch))
        assert.lengthOf([...on.taken("subscribe"), ...on.taken("unsubscribe")], 0)
      })
    )
  }

  it.effect("reads every subscribed task within as many intervals as there are batches", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const ids = named(5 * maxBatch)
      for (const id of ids) on.listen(id)
      yield* flush
      for (let round = 0; round < 3; round++) {
        on.forgetCalls()
        yield* advance("25 seconds")
        assert.sameMembers(on.taken("read").flat(), ids)
      }
    })
  )

  it.effect("reads the least recently read tasks first, whatever is added", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const ids = named(2 * maxBatch)
      for (const id of ids) on.listen(id)
      yield* flush
      on.forgetCalls()
      const hinted = ids.slice(0, maxBatch)
      yield* on.hint(hinted)
      assert.deepStrictEqual(on.taken("read"), [hinted])
      for (let i = 0; i < 2; i++) {
        for (const id of named(maxBatch)) on.listen(`${i} ${id}`)
        yield* advance("5 seconds")
      }
      assert.deepStrictEqual(on.taken("read"), [ids.slice(maxBatch), hinted])
    })
  )

  it.effect("skips ended tasks while a listener waits for others as well", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const ids = named(3 * maxBatch)
      on.listen(...ids)
      yield* flush
      for (const id of ids.slice(1)) on.states.set(id, "SUCCESS")
      yield* on.hint(ids.slice(1))
      on.forgetCalls()
      yield* advance("10 seconds")
      assert.deepStrictEqual(on.taken("read"), [["task 0"], ["task 0"]])
      // a later listener is notified as well, also of a reopened task
      on.states.set("task 5", "STARTED")
      on.listen("task 5")
      yield* advance("5 seconds")
      assert.deepStrictEqual(on.taken("read"), [["task 5"], ["task 0", "task 5"]])
    })
  )
})

describe("after a gap in the hints", () => {
  for (const gap of ["resync", "gone"] as const) {
    it.effect(`subscribes every task again: ${gap}`, () =>
      Effect.gen(function* () {
        const on = yield* make()
        const ids = named(3 * maxBatch)
        const leaves = ids.map((id) => on.listen(id))
        yield* flush
        on.forgetCalls()
        on.seen.length = 0
        yield* on.hint(gap)
        const registered = on.taken("subscribe")
        assert.lengthOf(registered, 3)
        assert.deepStrictEqual(registered.flat(), ids)
        assert.deepStrictEqual(on.seen, ids)
        assert.lengthOf(on.taken("read"), 0)
        for (const leave of leaves) leave()
        yield* flush
        assert.sameMembers(on.taken("unsubscribe").flat(), ids)
      })
    )
  }

  it.effect("unsubscribes a task whose listener left before it was subscribed again", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const leave = on.listen("a")
      yield* flush
      on.failing.add("subscribe")
      yield* on.hint("resync")
      leave()
      on.failing.clear()
      yield* advance("1 second")
      assert.deepStrictEqual(on.taken("unsubscribe"), [["a"]])
    })
  )

  it.effect("subscribes again a task that was about to be unsubscribed", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const leave = on.listen("a")
      yield* flush
      on.failing.add("unsubscribe")
      leave()
      yield* flush
      yield* on.hint("resync")
      on.forgetCalls()
      on.listen("a")
      on.failing.clear()
      yield* advance("1 second")
      assert.deepStrictEqual(on.taken("subscribe"), [["a"]])
      assert.lengthOf(on.taken("unsubscribe"), 0)
    })
  )

  it.effect("subscribes a task that had ended when it is read the next time", () =>
    Effect.gen(function* () {
      const on = yield* make()
      on.listen("a", "b")
      yield* flush
      on.states.set("a", "FAILURE")
      yield* on.hint(["a"])
      on.forgetCalls()
      yield* on.hint("resync")
      assert.deepStrictEqual(on.taken("subscribe"), [["b"]])
      // a replay opened it
      on.states.set("a", "PENDING")
      on.listen("a")
      yield* flush
      assert.deepStrictEqual(on.taken("subscribe"), [["a"]])
    })
  )

  it.effect("makes one call for a hint of a task that is being subscribed again", () =>
    Effect.gen(function* () {
      const on = yield* make({ callMillis: 10 })
      on.listen("a")
      yield* advance(10)
      on.listen("b")
      yield* flush
      // the call for b is in flight
      yield* on.hint("resync")
      yield* on.hint(["a"])
      on.forgetCalls()
      yield* advance(50)
      assert.deepStrictEqual(on.taken("subscribe"), [["a", "b"]])
      assert.lengthOf(on.taken("read"), 0)
    })
  )
})

describe("calls", () => {
  it.effect("reads are not delayed by new subscriptions, nor subscriptions by reads", () =>
    Effect.gen(function* () {
      const on = yield* make({ callMillis: 10 })
      on.listen("a")
      yield* advance(10)
      on.seen.length = 0
      yield* on.hint(["a"])
      for (let i = 0; i < 20; i++) {
        on.listen(`task ${i}`)
        yield* advance(5)
      }
      assert.include(on.seen.slice(0, 5), "a")
      on.forgetCalls()
      for (let i = 0; i < 20; i++) {
        yield* on.hint(["a"])
        if (i === 0) on.listen("b")
        yield* advance(5)
      }
      assert.include(on.taken("subscribe").flat(), "b")
    })
  )

  it.effect("what a call leaves unanswered is read by the next", () =>
    Effect.gen(function* () {
      const on = yield* make({ maxRecords: 3 })
      for (const id of named(8)) on.listen(id)
      yield* flush
      assert.deepStrictEqual(on.seen, named(8))
      on.seen.length = 0
      on.forgetCalls()
      yield* on.hint(named(8))
      assert.deepStrictEqual(on.seen, named(8))
      assert.deepStrictEqual(
        on.taken("read").map((ids) => ids.length),
        [8, 5, 2]
      )
    })
  )

  it.effect("a call after one that failed has half as many ids", () =>
    Effect.gen(function* () {
      const on = yield* make()
      for (const id of named(8)) on.listen(id)
      yield* flush
      on.forgetCalls()
      on.failing.add("read")
      yield* on.hint(named(8))
      on.failing.delete("read")
      yield* advance("10 seconds")
      assert.deepStrictEqual(
        on
          .taken("read")
          .slice(0, 3)
          .map((ids) => ids.length),
        [8, 4, 4]
      )
    })
  )

  it.effect("a smaller batch that failed is reported to those that a usual one would have had", () =>
    Effect.gen(function* () {
      const on = yield* make()
      on.failing.add("subscribe")
      on.listen("a")
      yield* flush
      on.listen("b")
      on.listen("c")
      on.errors.length = 0
      on.forgetCalls()
      yield* advance("1 second")
      const [first] = on.taken("subscribe")
      assert.lengthOf(first!, 1)
      assert.isAtLeast(on.errors.length, 3)
    })
  )

  it.effect("unsubscribes do not accumulate under load", () =>
    Effect.gen(function* () {
      const on = yield* make({ callMillis: 10 })
      on.listen("a")
      for (let i = 0; i < 100; i++) {
        const leave = on.listen(`task ${i}`)
        yield* on.hint(["a"])
        yield* advance(10)
        yield* advance(10)
        leave()
      }
      assert.isAtLeast(on.taken("unsubscribe").flat().length, 100 - 3 * maxBatch)
    })
  )

  it.effect("every listener of an id is notified until it leaves", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const leaves = [on.listen("a"), on.listen("a"), on.listen("a", "a")]
      yield* flush
      assert.deepStrictEqual(on.seen, ["a", "a", "a"])
      for (const left of [2, 1, 0]) {
        const leave = leaves.shift()!
        leave()
        leave()
        on.seen.length = 0
        yield* on.hint(["a"])
        assert.lengthOf(on.seen, left)
      }
      assert.deepStrictEqual(on.taken("unsubscribe"), [["a"]])
    })
  )
})

describe("a hint that carries the last record of a task", () => {
  it.effect("is passed on without a read", () =>
    Effect.gen(function* () {
      const on = yield* make()
      on.listen("a")
      yield* flush
      on.forgetCalls()
      on.seen.length = 0
      yield* on.hint([record("a", "SUCCESS")])
      assert.deepStrictEqual(on.seen, ["a"])
      yield* advance("1 minute")
      assert.lengthOf(on.taken("read"), 0)
    })
  )

  for (const [title, late] of [
    ["of the time before a replay", { generation: 1 }],
    ["of another enqueue of the id", { incarnation: "other" }]
  ] as const) {
    it.effect(`leads to a read where it is ${title}`, () =>
      Effect.gen(function* () {
        const on = yield* make()
        on.listen("a")
        yield* flush
        on.forgetCalls()
        yield* on.hint([{ ...record("a", "SUCCESS"), ...late }])
        assert.deepStrictEqual(on.taken("read"), [["a"]])
      })
    )
  }

  it.effect("is passed on by the read that is on its way, where the task was not read before", () =>
    Effect.gen(function* () {
      const on = yield* make({ callMillis: 10 })
      on.listen("a")
      yield* flush
      yield* on.hint([record("a", "SUCCESS")])
      assert.lengthOf(on.seen, 0)
      yield* advance(10)
      assert.deepStrictEqual(on.taken("read"), [["a"]])
    })
  )

  it.effect("is dropped where nobody waits for the task", () =>
    Effect.gen(function* () {
      const on = yield* make()
      on.listen("a")
      yield* flush
      on.forgetCalls()
      yield* on.hint([record("nobody", "SUCCESS")])
      assert.lengthOf(on.taken("read"), 0)
    })
  )
})

describe("a task that was created with a subscription", () => {
  /** Subscriptions whose process has waited for a task. */
  const waited = Effect.gen(function* () {
    const on = yield* make()
    const leave = on.listen("first")
    yield* flush
    leave()
    yield* flush
    on.forgetCalls()
    on.seen.length = 0
    return on
  })

  it.effect("is waited for without a call", () =>
    Effect.gen(function* () {
      const on = yield* waited
      on.interest.onCreate(record("a", "PENDING"))
      on.listen("a")
      yield* flush
      assert.deepStrictEqual(on.seen, ["a"])
      yield* on.hint([record("a", "SUCCESS")])
      assert.deepStrictEqual(on.seen, ["a", "a"])
      assert.lengthOf([...on.taken("read"), ...on.taken("subscribe")], 0)
    })
  )

  it.effect("is read by the sweep like any other", () =>
    Effect.gen(function* () {
      const on = yield* waited
      on.interest.onCreate(record("a", "PENDING"))
      on.listen("a")
      yield* advance("5 seconds")
      assert.deepStrictEqual(on.taken("read"), [["a"]])
    })
  )

  it.effect("is unsubscribed when its listener leaves", () =>
    Effect.gen(function* () {
      const on = yield* waited
      on.interest.onCreate(record("a", "PENDING"))
      on.listen("a")()
      yield* flush
      assert.deepStrictEqual(on.taken("unsubscribe"), [["a"]])
    })
  )

  for (const [title, hint] of [
    ["a hint", ["a"]],
    ["a gap", "resync"]
  ] as const) {
    it.effect(`is subscribed and read where ${title} came before the wait`, () =>
      Effect.gen(function* () {
        const on = yield* waited
        on.interest.onCreate(record("a", "PENDING"))
        yield* on.hint(hint)
        on.listen("a")
        yield* flush
        assert.deepStrictEqual(on.taken("subscribe"), [["a"]])
      })
    )
  }

  it.effect("is subscribed and read where every change is waited for", () =>
    Effect.gen(function* () {
      const on = yield* waited
      on.interest.onCreate(record("a", "PENDING"))
      on.interest.subscribe(["a"], {
        waitsFor: "change",
        onRecord: () => undefined,
        onError: () => undefined
      })
      yield* flush
      assert.deepStrictEqual(on.taken("subscribe"), [["a"]])
    })
  )

  it.effect("is asked for while the process waits for its tasks, and no longer", () =>
    Effect.gen(function* () {
      const on = yield* make()
      assert.isFalse(on.interest.expectsWait())
      on.listen("first")
      for (const id of ["a", "b"]) {
        assert.isTrue(on.interest.expectsWait())
        on.interest.onCreate(record(id, "PENDING"))
      }
      assert.isFalse(on.interest.expectsWait())
    })
  )
})

describe("a subscriber that refuses reads", () => {
  /** Subscribes, and accepts the ids of a set. */
  const choosy = (
    { errors, interest, seen }: Effect.Success<ReturnType<typeof make>>,
    ids: ReadonlyArray<string>,
    accepted: ReadonlySet<string>
  ) =>
    interest.subscribe(ids, {
      waitsFor: "end",
      accepts: (id) => accepted.has(id),
      onRecord: (id) => void seen.push(id),
      onError: (error) => void errors.push(error)
    })

  it.effect("is given an id when it accepts it, and registered for it then", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const accepted = new Set(["a"])
      const subscription = choosy(on, ["a", "b"], accepted)
      yield* flush
      assert.deepStrictEqual(on.taken("subscribe"), [["a"]])
      accepted.clear()
      yield* on.hint(["a", "b"])
      yield* advance("1 minute")
      assert.deepStrictEqual(on.seen, ["a"])
      for (const id of ["a", "b"]) accepted.add(id)
      subscription.read(["a", "b"])
      yield* flush
      assert.deepStrictEqual(on.taken("read"), [["a"]])
      assert.deepStrictEqual(on.taken("subscribe"), [["b"]])
      assert.sameMembers(on.seen, ["a", "a", "b"])
    })
  )

  it.effect("is subscribed again by the first read after a gap that it accepts", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const accepted = new Set(["a", "b", "c"])
      const subscription = choosy(on, ["a", "b", "c"], accepted)
      yield* flush
      accepted.clear()
      yield* on.hint("resync")
      on.forgetCalls()
      // it asks for one, another is hinted, and the third is swept
      accepted.add("a").add("b")
      subscription.read(["a"])
      yield* flush
      yield* on.hint(["b"])
      assert.deepStrictEqual(on.taken("subscribe"), [["a"], ["b"]])
      accepted.add("c")
      yield* advance("5 seconds")
      assert.deepStrictEqual(on.taken("subscribe"), [["c"]])
      on.forgetCalls()
      subscription.read(["a", "b", "c"])
      yield* flush
      assert.deepStrictEqual(on.taken("read"), [["a", "b", "c"]])
      assert.lengthOf(on.taken("subscribe"), 0)
      subscription.end()
      yield* flush
      assert.sameMembers(on.taken("unsubscribe").flat(), ["a", "b", "c"])
    })
  )

  it.effect("is subscribed again after a gap during the call that subscribes it", () =>
    Effect.gen(function* () {
      const on = yield* make({ callMillis: 10 })
      const accepted = new Set(["a"])
      const subscription = choosy(on, ["a"], accepted)
      yield* flush
      accepted.clear()
      yield* on.hint("resync")
      yield* advance(10)
      on.forgetCalls()
      accepted.add("a")
      subscription.read(["a"])
      yield* advance(10)
      assert.deepStrictEqual(on.taken("subscribe"), [["a"]])
    })
  )

  it.effect("is unsubscribed after a gap whose subscribe it refused", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const accepted = new Set(["a"])
      const subscription = choosy(on, ["a"], accepted)
      yield* flush
      accepted.clear()
      yield* on.hint("resync")
      subscription.end()
      yield* flush
      assert.deepStrictEqual(on.taken("unsubscribe"), [["a"]])
    })
  )

  it.effect("is given an id that another subscriber accepts", () =>
    Effect.gen(function* () {
      const on = yield* make()
      choosy(on, ["a"], new Set())
      yield* flush
      assert.lengthOf(on.taken("subscribe"), 0)
      const leave = on.listen("a")
      yield* flush
      assert.deepStrictEqual(on.seen, ["a", "a"])
      leave()
      yield* on.hint(["a"])
      assert.lengthOf(on.taken("read"), 0)
    })
  )

  it.effect("keeps the sweep from no task of another", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const ids = named(5 * maxBatch)
      const accepted = new Set(ids)
      choosy(on, ids, accepted)
      on.listen("a")
      yield* flush
      accepted.clear()
      on.forgetCalls()
      yield* advance("1 minute")
      assert.include(on.taken("read").flat(), "a")
    })
  )

  it.effect("is not given an id that it has dropped", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const subscription = choosy(on, ["a", "b"], new Set(["a", "b"]))
      yield* flush
      on.seen.length = 0
      subscription.drop("a")
      yield* on.hint(["a", "b"])
      yield* on.hint("resync")
      assert.deepStrictEqual(new Set(on.seen), new Set(["b"]))
      assert.deepStrictEqual(on.taken("unsubscribe"), [["a"]])
      subscription.end()
      yield* flush
      assert.deepStrictEqual(on.taken("unsubscribe"), [["b"]])
    })
  )
})

describe("the close of the scope", () => {
  it.effect("fails every subscriber once, and later ones after they have their handle", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const on = yield* Scope.provide(make(), scope)
      on.listen("a", "b")
      on.listen("b")
      const leave = on.listen("a")
      yield* flush
      leave()
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(on.errors, ["closed", "closed", "closed"])
      on.errors.length = 0
      on.listen("a")
      on.listen("c")()
      assert.deepStrictEqual(on.errors, [])
      yield* flush
      assert.deepStrictEqual(on.errors, ["closed"])
    })
  )
})
