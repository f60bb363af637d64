import { existsSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeWithServers, startServer } from "./server.ts"

const pidOf = (info: unknown) => Number(/process_id:(\d+)/.exec(String(info))?.[1])

const exists = (pid: number) =>
  Effect.isSuccess(Effect.try({ try: () => process.kill(pid, 0), catch: () => "gone" }))

describeWithServers("dedicated Redis servers", () => {
  it.live("a persistent server that was killed has its data after a restart", () =>
    Effect.gen(function* () {
      const server = yield* startServer({ persistent: true, password: "a/b c" })
      yield* server.command("SET", "key", "välue\r\n")
      yield* server.kill
      assert.match((yield* Effect.flip(server.command("PING"))).message, /ECONNREFUSED/)
      yield* server.start
      assert.strictEqual(yield* server.command("GET", "key"), "välue\r\n")
    })
  )

  it.live("a frozen server answers once it is resumed", () =>
    Effect.gen(function* () {
      const server = yield* startServer()
      yield* server.freeze
      const answer = yield* Effect.forkChild(server.command("PING"))
      yield* Effect.sleep("50 millis")
      assert.isUndefined(answer.pollUnsafe())
      yield* server.thaw
      assert.strictEqual(yield* Fiber.join(answer), "PONG")
    })
  )

  it.live("closing the scope removes process and directory, even of a frozen server", () =>
    Effect.gen(function* () {
      const [pid, directory] = yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* startServer()
          const pid = pidOf(yield* server.command("INFO", "server"))
          const [, directory] = (yield* server.command("CONFIG", "GET", "dir")) as ReadonlyArray<string>
          yield* server.freeze
          return [pid, directory!] as const
        })
      )
      assert.isFalse(yield* exists(pid))
      assert.isFalse(existsSync(directory))
    })
  )

  it.live("arguments that the server refuses fail its start with the server's message", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(startServer({ args: ["--no-such-option", "1"] }))
      assert.include(error.message, "no-such-option")
    })
  )
})
