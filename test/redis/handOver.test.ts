/** Hand-over: an enqueue claims and starts its message for a worker that waits, and sends it there. */
import { assert, describe } from "@effect/vitest"
import { AsyncResult, Task } from "chicory"
import { RedisStore } from "chicory/redis"
import { Context, Deferred, Effect, Exit, Option, Schema, Scope, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import type { ClaimedMessage, FusedClaimRequest, HandedOver, NewRecord } from "../../src/BackendDriver.ts"
import type { Envelope } from "../../src/BrokerDriver.ts"
import { Count, countingHandler, eventually, roundTrip, startWorker } from "../support/storeFixture.ts"
import { withoutAges } from "../support/withoutAges.ts"
import { describeWithServers, type Server } from "./server.ts"
import { clientOf, openStore, testWithServer as test, untilSubscribed } from "./storeFixture.ts"

const LONG = 60_000

/** How many commands of a kind clients and scripts have called. */
const statOf = (server: Server, command: string) =>
  Effect.map(server.command("INFO", "commandstats"), (info) =>
    Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(String(info))?.[1] ?? 0)
  )

/** Runs an effect, and returns how many scripts were called meanwhile. */
const scriptsOf = <E, R>(server: Server, effect: Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    const before = yield* statOf(server, "evalsha")
    yield* effect
    return (yield* statOf(server, "evalsha")) - before
  })

// #region Drivers

const recordOf = (id: string, more: Partial<NewRecord> = {}): NewRecord => ({
  id,
  task: "mail",
  incarnation: "",
  queue: "default",
  key: undefined,
  payloadHash: "",
  delayMillis: 0,
  expiresMillis: undefined,
  retentionMillis: LONG,
  reservedMillis: undefined,
  ...more
})

interface Enqueue {
  readonly record?: Partial<NewRecord>
  readonly message?: Partial<Envelope>
}

const itemOf = (id: string, { message, record }: Enqueue = {}) => ({
  record: recordOf(id, record),
  message: { id, task: "mail", queue: "default", priority: 100, delayMillis: 0, body: "{}", ...message }
})

const DEFAULTS = {
  task: "mail",
  leaseMillis: LONG,
  maxCrashes: 3,
  retentionMillis: LONG,
  deadLetterRetentionMillis: LONG
}

/** The drivers of a process whose worker is subscribed, with what was handed over to it. */
const openDrivers = Effect.fnUntraced(function* (server: Server) {
  const client = yield* clientOf(server.url)
  const { backend, broker } = yield* Effect.provideContext(RedisStore.makeDrivers({}), client)
  const fusion = backend.fusion!
  yield* Effect.forkScoped(Stream.runDrain(broker.ready(["default"], 8)))
  yield* untilSubscribed(server)
  const handedOver: Array<HandedOver> = []
  const state = { takes: true }
  const claim = (claimId: string, more: Partial<FusedClaimRequest> = {}) =>
    fusion.claim!({
      queues: ["default"],
      max: 8,
      leaseMillis: LONG,
      worker: "w1",
      claimId,
      startDefaults: [DEFAULTS],
      onHandedOver: (message) => {
        if (state.takes) handedOver.push(message)
        return state.takes
      },
      ...more
    })
  const enqueue = (id: string, more?: Enqueue) => fusion.enqueue([itemOf(id, more)])
  return {
    backend,
    broker,
    claim,
    close: (worker = "w1") => fusion.closeClaim!(worker),
    enqueue,
    fusion,
    handedOver,
    state,
    counts: Effect.map(broker.counts(["default"]), (found) => withoutAges(found)[0]!),
    textOf: (id: string) => Effect.map(server.command("GET", `{chicory:0}:task:${id}`), String),
    settle: ({ delivery: { handle, id }, run }: ClaimedMessage) =>
      fusion.settle([
        {
          handle,
          settlement: {
            id: id!,
            token: run!.token,
            outcome: { _tag: "Success", exit: "{}", retentionMillis: LONG }
          }
        }
      ])
  }
})

const idsOf = (messages: ReadonlyArray<ClaimedMessage>) => messages.map(({ delivery }) => delivery.id)
const handedIds = (messages: ReadonlyArray<HandedOver>) => idsOf(messages.map(({ message }) => message))

/** A record without its times and its token. */
const untimed = (text: string, { run }: ClaimedMessage) =>
  text.replaceAll(run!.token, "token").replaceAll(/\b\d{13}\b/g, "time")

// #endregion

describeWithServers("hand-over on Redis", () => {
  describe.concurrent("an enqueue", () => {
    test("claims and starts for a claim that waits, as a claim would", {}, (server) =>
      Effect.gen(function* () {
        const { claim, counts, enqueue, handedOver, settle, textOf } = yield* openDrivers(server)
        // claimed
        yield* enqueue("a")
        const [claimed] = yield* claim("c1", { max: 1 })
        const first = untimed(yield* textOf("a"), claimed!)
        // handed over
        assert.deepStrictEqual(yield* claim("c2"), [])
        yield* enqueue("b")
        yield* eventually(Effect.sync(() => handedOver.length === 1))
        const { leasedMillis, message } = handedOver[0]!
        assert.deepStrictEqual(message.run?.started, claimed!.run?.started)
        assert.deepInclude(message.delivery, {
          id: "b",
          task: "mail",
          body: "{}",
          queue: "default",
          generation: 0
        })
        assert.strictEqual(message.delivery.ageMillis, 0)
        assert.isBelow(leasedMillis, 5_000)
        const text = yield* textOf("b")
        assert.strictEqual(untimed(text, message), first)
        const fields = text.split(" ")
        const [enqueuedAt, startedAt] = [Number(fields[18]), Number(fields[12])]
        assert.isAtLeast(startedAt, enqueuedAt)
        assert.deepStrictEqual(yield* counts, { ready: 0, delayed: 0, claimed: 2 })
        assert.deepStrictEqual(yield* settle(message), ["Stored"])
        assert.deepStrictEqual(yield* settle(claimed!), ["Stored"])
        assert.deepStrictEqual(yield* counts, { ready: 0, delayed: 0, claimed: 0 })
        assert.strictEqual(Number(yield* server.command("EXISTS", "{chicory:0}:queue:default:texts")), 0)
      })
    )

    test("hands over as many messages as the claim did not find, and then wakes the worker", {}, (server) =>
      Effect.gen(function* () {
        const { broker, claim, counts, enqueue, handedOver } = yield* openDrivers(server)
        yield* claim("c1", { max: 2 })
        let woken = 0
        yield* Effect.forkScoped(
          Stream.runForEach(broker.ready(["default"], 8), () => Effect.sync(() => woken++))
        )
        yield* eventually(Effect.sync(() => woken === 1))
        for (const id of ["a", "b", "c"]) yield* enqueue(id)
        yield* eventually(Effect.sync(() => handedOver.length === 2 && woken > 1))
        assert.deepStrictEqual(handedIds(handedOver), ["a", "b"])
        assert.deepStrictEqual(yield* counts, { ready: 1, delayed: 0, claimed: 2 })
        assert.deepStrictEqual(idsOf(yield* claim("c2")), ["c"])
      })
    )

    test("hands nothing over that a claim could not start at once", {}, (server) =>
      Effect.gen(function* () {
        const { claim, counts, enqueue, fusion, handedOver } = yield* openDrivers(server)
        const refused: Readonly<Record<string, Enqueue>> = {
          delayed: { record: { delayMillis: 200 }, message: { delayMillis: 200 } },
          urgent: { message: { priority: 200 } },
          unknown: { record: { task: "other" }, message: { task: "other" } },
          expiring: { record: { expiresMillis: LONG } },
          keyed: {
            record: { key: "k", payloadHash: "h", incarnation: "1" },
            message: { incarnation: "1" }
          },
          retained: { record: { retentionMillis: 1_000 } },
          large: { message: { body: "x".repeat(10_000) } }
        }
        for (const [id, more] of Object.entries(refused)) {
          assert.deepStrictEqual(yield* claim(`before-${id}`), [])
          yield* enqueue(id, more)
          if (id === "delayed") yield* Effect.sleep("250 millis")
          assert.strictEqual((yield* counts).ready, 1, id)
          assert.deepStrictEqual(idsOf(yield* claim(`after-${id}`)), [id])
        }
        assert.deepStrictEqual(yield* claim("before-two"), [])
        yield* fusion.enqueue([itemOf("x"), itemOf("y")])
        assert.strictEqual((yield* counts).ready, 2)
        assert.lengthOf(yield* claim("after-two"), 2)
        assert.lengthOf(handedOver, 0)
        yield* enqueue("plain")
        yield* eventually(Effect.sync(() => handedOver.length === 1))
      })
    )

    test("hands nothing over that a claim would not return first", {}, (server) =>
      Effect.gen(function* () {
        const { claim, counts, enqueue, handedOver } = yield* openDrivers(server)
        const urgent: Enqueue = { message: { priority: 200 } }
        const soon: Enqueue = { record: { delayMillis: 200 }, message: { delayMillis: 200 } }
        for (const [before, more] of Object.entries({ urgent, soon })) {
          assert.deepStrictEqual(yield* claim(`waits-${before}`), [])
          yield* enqueue(before, more)
          yield* Effect.sleep("250 millis")
          yield* enqueue(`after-${before}`)
          assert.strictEqual((yield* counts).ready, 2)
          assert.deepStrictEqual(idsOf(yield* claim(`claims-${before}`, { max: 2 })), [
            before,
            `after-${before}`
          ])
        }
        // a claim whose lease is over
        const lapsing = { leaseMillis: 200, startDefaults: [] }
        yield* enqueue("lapsed")
        yield* claim("lapsing", lapsing)
        yield* claim("waits-lapsed")
        yield* Effect.sleep("250 millis")
        yield* enqueue("after-lapsed")
        assert.strictEqual((yield* counts).ready, 2)
        assert.deepStrictEqual(idsOf(yield* claim("claims-lapsed")), ["lapsed", "after-lapsed"])
        assert.lengthOf(handedOver, 0)
      })
    )

    test("hands tasks to idle processes in turns", {}, (server) =>
      Effect.gen(function* () {
        const one = yield* openDrivers(server)
        const other = yield* openDrivers(server)
        yield* untilSubscribed(server, 2)
        // a process has its turn within about a second of its claim, which a slow machine may exceed
        const inTurns = (attempt: string): Effect.Effect<void, unknown> =>
          Effect.gen(function* () {
            const begunAt = performance.now()
            const before = [one.handedOver.length, other.handedOver.length] as const
            yield* one.claim(`${attempt}.1`, { worker: "w1" })
            yield* other.claim(`${attempt}.2`, { worker: "w2" })
            for (let n = 1; n <= 6; n++) yield* one.enqueue(`${attempt}.${n}`)
            if (performance.now() - begunAt > 1000) return yield* inTurns(`${attempt}+`)
            const handed = () => [one.handedOver.length - before[0], other.handedOver.length - before[1]]
            yield* eventually(Effect.sync(() => handed()[0]! + handed()[1]! === 6))
            assert.deepStrictEqual(handed(), [3, 3])
          })
        yield* inTurns("a")
      })
    )

    test("hands nothing over while the memory is full", {}, (server) =>
      Effect.gen(function* () {
        const { claim, counts, enqueue, handedOver, textOf } = yield* openDrivers(server)
        yield* claim("c1")
        yield* server.command("CONFIG", "SET", "maxmemory", "1")
        const refused = yield* Effect.flip(enqueue("a"))
        assert.include(String(refused.cause), "OOM")
        yield* server.command("CONFIG", "SET", "maxmemory", "0")
        assert.strictEqual(yield* textOf("a"), "null")
        assert.lengthOf(handedOver, 0)
        assert.deepStrictEqual(yield* counts, { ready: 0, delayed: 0, claimed: 0 })
      })
    )

    test("hands nothing over to a claim that is older than 2.5 seconds", {}, (server) =>
      Effect.gen(function* () {
        const { claim, counts, enqueue, handedOver } = yield* openDrivers(server)
        yield* claim("c1")
        yield* Effect.sleep("2600 millis")
        yield* enqueue("a")
        assert.strictEqual((yield* counts).ready, 1)
        assert.lengthOf(handedOver, 0)
      })
    )

    test("hands nothing over to a claim of other queues, or that found all that it asked for", {}, (server) =>
      Effect.gen(function* () {
        const { claim, counts, enqueue, handedOver } = yield* openDrivers(server)
        yield* claim("c1", { queues: ["another"] })
        yield* enqueue("a")
        assert.strictEqual((yield* counts).ready, 1)
        assert.lengthOf(yield* claim("c2", { max: 1 }), 1)
        yield* enqueue("b")
        assert.strictEqual((yield* counts).ready, 1)
        assert.lengthOf(handedOver, 0)
      })
    )

    test("hands nothing over to a process that is gone", {}, (server) =>
      Effect.gen(function* () {
        const live = yield* openDrivers(server)
        const gone = yield* Scope.make()
        const killed = yield* Scope.provide(openDrivers(server), gone)
        yield* killed.claim("c1", { worker: "w2" })
        // no worker of it says goodbye
        yield* Scope.close(gone, Exit.void)
        yield* eventually(
          Effect.map(
            server.command("PUBSUB", "CHANNELS", "*:process:*"),
            (found) => (found as ReadonlyArray<string>).length === 1
          )
        )
        yield* live.enqueue("a")
        assert.deepStrictEqual(yield* live.counts, { ready: 1, delayed: 0, claimed: 0 })
      })
    )
  })

  describe.concurrent("what was not received", () => {
    test("is returned by the next claim, counted in its maximum", {}, (server) =>
      Effect.gen(function* () {
        const { claim, enqueue, handedOver, state } = yield* openDrivers(server)
        yield* claim("c1")
        yield* enqueue("a")
        yield* eventually(Effect.sync(() => handedOver.length === 1))
        state.takes = false
        for (const id of ["b", "c", "d"]) yield* enqueue(id)
        yield* Effect.sleep("100 millis")
        state.takes = true
        const second = yield* claim("c2", { max: 2 })
        assert.deepStrictEqual(idsOf(second), ["b", "c"])
        assert.deepStrictEqual(
          second.map(({ run }) => run?.started),
          second.map(() => ({ _tag: "Run" as const, fence: 1, attempt: 1, retries: 0, crashes: 0 }))
        )
        const third = yield* claim("c3", { max: 2 })
        assert.deepStrictEqual(idsOf(third), ["d"])
        assert.deepStrictEqual(yield* claim("c4"), [])
        // and the claim that waits is the last one
        yield* enqueue("e")
        yield* eventually(Effect.sync(() => handedOver.length === 2))
        assert.deepStrictEqual(handedIds(handedOver), ["a", "e"])
      })
    )

    test("is returned again by the repetition of a claim whose answer was lost", {}, (server) =>
      Effect.gen(function* () {
        const { claim, enqueue, state } = yield* openDrivers(server)
        yield* claim("c1")
        state.takes = false
        yield* enqueue("a")
        // the claim is applied, and takes longer than its caller waits
        yield* server.command("CLIENT", "PAUSE", "300", "ALL")
        const cut = yield* Effect.exit(Effect.timeout(claim("c2"), "50 millis"))
        assert.strictEqual(cut._tag, "Failure")
        yield* Effect.sleep("500 millis")
        assert.deepStrictEqual(idsOf(yield* claim("c2", { isRetry: true })), ["a"])
        assert.deepStrictEqual(yield* claim("c3"), [])
      })
    )

    test("is not returned once it was received out of order, or settled", {}, (server) =>
      Effect.gen(function* () {
        const { claim, enqueue, handedOver, settle, state } = yield* openDrivers(server)
        yield* claim("c1")
        state.takes = false
        yield* enqueue("a")
        yield* Effect.sleep("100 millis")
        state.takes = true
        yield* enqueue("b")
        yield* enqueue("c")
        yield* eventually(Effect.sync(() => handedOver.length === 2))
        yield* settle(handedOver[0]!.message)
        assert.deepStrictEqual(idsOf(yield* claim("c2")), ["a"])
        assert.deepStrictEqual(handedIds(handedOver), ["b", "c"])
      })
    )

    test("comes back after its lease where the worker was killed, and a crash is counted", {}, (server) =>
      Effect.gen(function* () {
        const { claim, enqueue, handedOver } = yield* openDrivers(server)
        const other = yield* openDrivers(server)
        yield* untilSubscribed(server, 2)
        yield* claim("c1", { leaseMillis: 300, startDefaults: [{ ...DEFAULTS, leaseMillis: 300 }] })
        yield* enqueue("a")
        yield* eventually(Effect.sync(() => handedOver.length === 1))
        assert.deepStrictEqual(yield* other.claim("c2", { worker: "w2" }), [])
        yield* Effect.sleep("350 millis")
        const [message] = yield* other.claim("c3", { worker: "w2" })
        assert.deepInclude(message?.run?.started, { _tag: "Run", attempt: 2, crashes: 1, lostWorker: "w1" })
      })
    )

    test("is returned by the end of the wait, after which nothing is handed over", {}, (server) =>
      Effect.gen(function* () {
        const { claim, close, counts, enqueue, handedOver, state } = yield* openDrivers(server)
        yield* claim("c1")
        state.takes = false
        yield* enqueue("a")
        yield* Effect.sleep("100 millis")
        assert.deepStrictEqual(idsOf(yield* close()), ["a"])
        assert.deepStrictEqual(yield* close(), [])
        state.takes = true
        yield* enqueue("b")
        assert.deepStrictEqual(yield* counts, { ready: 1, delayed: 0, claimed: 1 })
        assert.lengthOf(handedOver, 0)
      })
    )
  })

  describe.concurrent("a worker", () => {
    /** Starts a worker that waits, in a scope of its own. */
    const waiting = Effect.fnUntraced(function* (
      server: Server,
      hold?: (n: number) => Effect.Effect<void>,
      options: Parameters<typeof startWorker>[3] = {}
    ) {
      const runs = countingHandler(hold)
      const scope = yield* Scope.make()
      yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
      const store = yield* openStore(server)
      yield* Scope.provide(startWorker(store, Count, runs.layer, options), scope)
      yield* untilSubscribed(server)
      yield* untilWaiting(server)
      return { runs, scope, store }
    })

    const untilWaiting = (server: Server, count = 1) =>
      eventually(
        Effect.map(
          server.command("KEYS", "{chicory:0}:waiting-claim:*"),
          (keys) => (keys as ReadonlyArray<string>).length >= count
        )
      )

    /** From here on the only process that is subscribed misses all messages, which another subscriber receives. */
    const loseMessages = Effect.fnUntraced(function* (server: Server) {
      const [channel] = (yield* server.command("PUBSUB", "CHANNELS", "*:process:*")) as ReadonlyArray<string>
      const clients = String(yield* server.command("CLIENT", "LIST", "TYPE", "pubsub"))
      const other = Context.get(yield* clientOf(server.url), Redis.Redis)
      yield* other.subscribe(channel!)
      yield* server.command("ACL", "SETUSER", "default", "-subscribe")
      yield* server.command("CLIENT", "KILL", "ID", /\bid=(\d+)/.exec(clients)![1]!)
    })

    test("that is idle costs a caller two scripts a round trip", {}, (server) =>
      Effect.gen(function* () {
        yield* waiting(server, undefined, { concurrency: 100 })
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          for (let n = 0; n < 5; n++) yield* roundTrip(n)
          const before = performance.now()
          const rounds = 200
          const scripts = yield* scriptsOf(
            server,
            Effect.forEach(
              Array.from({ length: rounds }, (_, n) => n),
              roundTrip,
              { discard: true }
            )
          )
          // pings, heartbeats, regular claims, and a claim for each 50 tasks
          const besides = 10 + ((performance.now() - before) / 1000) * 8
          assert.isBelow(scripts, 2 * rounds + besides)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("that has no free slot is handed nothing", {}, (server) =>
      Effect.gen(function* () {
        const done = yield* Deferred.make<void>()
        const { runs } = yield* waiting(server, (n) => (n === 1 ? Deferred.await(done) : Effect.void), {
          concurrency: 1
        })
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          const first = yield* Count.delay({ n: 1, millis: 0 })
          yield* runs.untilBegun(1)
          const second = yield* Count.delay({ n: 2, millis: 0 })
          yield* Effect.sleep("300 millis")
          assert.strictEqual(Number(yield* server.command("ZCARD", "{chicory:0}:queue:default:claimed")), 1)
          yield* Deferred.succeed(done, undefined)
          assert.deepStrictEqual(yield* AsyncResult.all([first, second]), [1, 2])
          assert.deepStrictEqual(runs.begun, [1, 2])
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("runs what was lost on its way", {}, (server) =>
      Effect.gen(function* () {
        const { runs } = yield* waiting(server)
        yield* untilWaiting(server)
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          yield* loseMessages(server)
          const handle = yield* Count.delay({ n: 7, millis: 0 })
          const record = String(yield* server.command("GET", `{chicory:0}:task:${handle.taskId}`))
          assert.match(record, /^STARTED /)
          // its next claim brings it
          yield* runs.untilEnded(1)
          yield* server.command("ACL", "SETUSER", "default", "+subscribe")
          assert.strictEqual(yield* AsyncResult.get(handle), 7)
          assert.deepStrictEqual(runs.begun, [7])
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("that stops puts back what it was handed, with nothing counted", {}, (server) =>
      Effect.gen(function* () {
        const { runs, scope } = yield* waiting(server)
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          yield* loseMessages(server)
          const handle = yield* Count.delay({ n: 7, millis: 0 })
          const key = `{chicory:0}:task:${handle.taskId}`
          assert.match(String(yield* server.command("GET", key)), /^STARTED /)
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(runs.begun, [])
          const released = Option.getOrThrow(yield* AsyncResult.poll(handle))
          assert.deepInclude(released, { attempts: 0, state: "PENDING" })
          // nothing is handed over to it any more, and others run the task
          assert.deepStrictEqual(yield* server.command("KEYS", "{chicory:0}:waiting-claim:*"), [])
          yield* server.command("ACL", "SETUSER", "default", "+subscribe")
          yield* startWorker(yield* openStore(server), Count, runs.layer)
          assert.strictEqual(yield* AsyncResult.get(handle), 7)
          assert.strictEqual(Option.getOrThrow(yield* AsyncResult.poll(handle)).attempts, 1)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("runs each task once, and leaves none to its lease, while its subscriptions are cut", {}, (server) =>
      Effect.gen(function* () {
        const { runs } = yield* waiting(server, undefined, { concurrency: 20, lease: "5 minutes" })
        const producer = yield* openStore(server, { sweepInterval: "200 millis" })
        yield* Effect.gen(function* () {
          yield* Effect.forkChild(
            Effect.forever(
              Effect.andThen(server.command("CLIENT", "KILL", "TYPE", "pubsub"), Effect.sleep("150 millis"))
            )
          )
          const handles = yield* Effect.forEach(
            Array.from({ length: 400 }, (_, n) => n),
            (n) => Effect.tap(Count.delay({ n, millis: 0 }), () => Effect.sleep("2 millis"))
          )
          const values = yield* AsyncResult.all(handles)
          assert.lengthOf(values, 400)
          assert.deepStrictEqual(
            runs.begun.toSorted((a, b) => a - b),
            values
          )
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("beside another one in a process receives tasks for its own queue", {}, (server) =>
      Effect.gen(function* () {
        const Other = Task.make("other", {
          payload: { n: Schema.Number },
          success: Schema.Number,
          queue: "others"
        })
        const { runs, store } = yield* waiting(server)
        yield* startWorker(
          store,
          Other,
          Other.toLayer(({ n }) => Effect.succeed(-n))
        )
        yield* untilWaiting(server, 2)
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          for (let n = 1; n <= 20; n++) {
            assert.strictEqual(yield* roundTrip(n), n)
            assert.strictEqual(yield* Effect.flatMap(Other.delay({ n }), AsyncResult.get), -n)
          }
          assert.lengthOf(runs.begun, 20)
        }).pipe(Effect.provideContext(producer))
      })
    )

    test("beside another one of the same queue in a process: each task runs once", {}, (server) =>
      Effect.gen(function* () {
        const { runs, store } = yield* waiting(server, undefined, { concurrency: 3 })
        yield* startWorker(store, Count, runs.layer, { concurrency: 2 })
        yield* untilWaiting(server, 2)
        const producer = yield* openStore(server)
        yield* Effect.gen(function* () {
          const callers = Array.from({ length: 8 }, (_, caller) =>
            Effect.forEach(
              Array.from({ length: 30 }, (_, n) => caller * 100 + n),
              (n) => Effect.map(roundTrip(n), (value) => assert.strictEqual(value, n)),
              { discard: true }
            )
          )
          yield* Effect.all(callers, { concurrency: "unbounded" })
          assert.lengthOf(runs.begun, 240)
          assert.lengthOf(new Set(runs.begun), 240)
        }).pipe(Effect.provideContext(producer))
      })
    )
  })
})
