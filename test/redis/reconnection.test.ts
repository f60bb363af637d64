import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Redis from "effect/persistence/Redis"
import * as Reconnection from "../../src/redis/Reconnection.ts"
import { advance, assertPending, exitOf, fork } from "../support/memoryFixture.ts"

/** A reconnection over a client that never answers, and the commands that it was given. */
const make = Effect.gen(function* () {
  const commands: Array<string> = []
  const redis = yield* Redis.make({
    send: (command: string) => Effect.suspend(() => (commands.push(command), Effect.never)),
    subscribe: () => Effect.succeed(Effect.never),
    connect: Effect.never
  })
  return { commands, reconnection: yield* Reconnection.make(redis) }
})

it.effect("a store leaves its server without waiting for the answer, at most once a second", () =>
  Effect.gen(function* () {
    const { commands, reconnection } = yield* make
    yield* reconnection.reconnect
    yield* reconnection.reconnect
    yield* advance("500 millis")
    assert.deepStrictEqual(commands, ["QUIT"])
    yield* advance("500 millis")
    yield* reconnection.reconnect
    yield* advance(0)
    assert.deepStrictEqual(commands, ["QUIT", "QUIT"])
  })
)

it.effect("who waits for it is told each time", () =>
  Effect.gen(function* () {
    const { reconnection } = yield* make
    for (let i = 0; i < 2; i++) {
      const waiting = yield* fork(reconnection.untilReconnect)
      assertPending(waiting)
      yield* reconnection.reconnect
      yield* advance("1 second")
      assert.isDefined(exitOf(waiting))
    }
  })
)
