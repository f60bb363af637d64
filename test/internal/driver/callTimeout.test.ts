import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { Worker } from "node:worker_threads"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Scope } from "effect"
import * as CallLimit from "../../../src/internal/driver/callTimeout.ts"
import { fork, exitOf, advance, assertPending, flush } from "../../support/memoryFixture.ts"

/** Connects to a server in a thread of its own that answers after a time. */
const answeringAfter = Effect.fnUntraced(function* (millis: number) {
  const server = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Worker(
          `const { parentPort, workerData } = require("node:worker_threads")
          const server = require("node:net").createServer((socket) =>
            socket.once("data", () => setTimeout(() => socket.write("answer"), workerData)))
          server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port))`,
          { eval: true, workerData: millis }
        )
    ),
    (server) => Effect.promise(() => server.terminate())
  )
  const [port] = yield* Effect.promise(() => once(server, "message") as Promise<[number]>)
  return yield* Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
})

/** Blocks the event loop. */
const block = (millis: number): void =>
  void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis)

const limit = CallLimit.make(Duration.seconds(5), (cause) => cause)

describe("callTimeout", () => {
  it.effect("passes an answer in time through", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      assert.strictEqual(yield* bounded(Effect.succeed("at once")), "at once")
      const later = yield* fork(bounded(Effect.delay(Effect.succeed("later"), "4 seconds")))
      yield* advance("4 seconds")
      assert.deepStrictEqual(exitOf(later), Exit.succeed("later"))
    })
  )

  it.effect("fails each call at its own deadline, independent of the others", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      const silent = yield* fork(Effect.flip(bounded(Effect.never)))
      yield* advance("2 seconds")
      const answered = yield* fork(bounded(Effect.delay(Effect.succeed(1), "1 second")))
      const other = yield* fork(Effect.flip(bounded(Effect.never)))
      yield* advance("2999 millis")
      assert.deepStrictEqual(exitOf(answered), Exit.succeed(1))
      assertPending(silent)
      yield* advance("1 millis")
      const failed = exitOf(silent)
      assert(failed !== undefined && Exit.isSuccess(failed))
      assert.include(failed.value.message, "did not answer within 5s")
      assertPending(other)
      yield* advance("2 seconds")
      assert(Exit.isSuccess(exitOf(other)))
    })
  )

  it.effect("interrupts a call that times out and a call whose caller is interrupted", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      let interrupted = 0
      const call: Effect.Effect<never> = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => interrupted++)
      )
      const late = yield* fork(Effect.flip(bounded(call)))
      const left = yield* fork(bounded(call))
      left.interruptUnsafe()
      yield* advance("1 millis")
      assert.strictEqual(interrupted, 1)
      yield* advance("5 seconds")
      assert.strictEqual(interrupted, 2)
      assert(Exit.isSuccess(exitOf(late)))
    })
  )

  it.effect("fails and interrupts the calls on their way when its scope closes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const bounded = yield* Scope.provide(limit, scope)
      let interrupted = false
      const waiting = yield* fork(
        Effect.flip(
          bounded(
            Effect.onInterrupt(Effect.never, () =>
              Effect.sync(() => {
                interrupted = true
              })
            )
          )
        )
      )
      yield* Scope.close(scope, Exit.void)
      yield* flush
      const failed = exitOf(waiting)
      assert(Exit.isSuccess(failed))
      assert.include(failed.value.message, "the store was closed")
      assert.isTrue(interrupted)
    })
  )

  it.effect("fails with the call's own failure", () =>
    Effect.gen(function* () {
      const bounded = yield* limit
      const answer = yield* Deferred.make<string>()
      const waiting = yield* fork(bounded(Deferred.await(answer)))
      yield* Deferred.die(answer, "a bug")
      yield* advance("1 millis")
      assert.isTrue(Exit.hasDies(exitOf(waiting)))
    })
  )

  it.live("passes an answer through that came in time while this process was blocked", () =>
    Effect.gen(function* () {
      const bounded = yield* CallLimit.make(Duration.millis(500), (cause) => cause)
      const socket = yield* answeringAfter(200)
      const answer = Effect.callback<string>((resume) => {
        socket.once("data", (data) => resume(Effect.succeed(data.toString())))
        socket.write("ask")
      })
      const called = yield* Effect.forkChild(bounded(answer), { startImmediately: true })
      // the request is sent
      yield* Effect.sleep("50 millis")
      // behind the phase of the event loop that reads sockets: the next one is that of timers
      yield* Effect.yieldNow
      block(1000)
      assert.strictEqual(yield* Fiber.join(called), "answer")
    })
  )
})
