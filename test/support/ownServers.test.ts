import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { freePort, launch, run } from "./ownServers.ts"
import { eventually } from "./storeFixture.ts"

const exists = (pid: number) =>
  Effect.isSuccess(Effect.try({ try: () => process.kill(pid, 0), catch: () => "gone" }))

const gone = (pid: number) => eventually(Effect.map(exists(pid), (there) => !there))

describe("launched programs", () => {
  it.live("a program ends with the process that started it, even if that process is killed", () =>
    Effect.gen(function* () {
      const file = fileURLToPath(new URL("./sleepingProcess.ts", import.meta.url))
      const starter = spawn(process.execPath, [file], { stdio: ["ignore", "pipe", "inherit"] })
      const pid = yield* Effect.callback<number>((resume) => {
        starter.stdout.once("data", (chunk: Buffer) => resume(Effect.succeed(Number(chunk.toString()))))
      })
      assert.isTrue(yield* exists(pid))
      starter.kill("SIGKILL")
      yield* Effect.timeout(gone(pid), "10 seconds")
    })
  )

  it.live("a program has the id of the launched process, and leaves no guard process behind", () =>
    Effect.gen(function* () {
      const mark = `${crypto.randomUUID()}`
      const child = launch("sh", ["-c", `echo $$; sleep 0.1; : ${mark}`])
      const said = yield* Effect.callback<string>((resume) => {
        child.stdout?.once("data", (chunk: Buffer) => resume(Effect.succeed(chunk.toString())))
      })
      assert.strictEqual(Number(said), child.pid)
      yield* Effect.timeout(
        eventually(Effect.map(run("ps", ["-A", "-o", "args="]), (all) => !all.includes(mark))),
        "10 seconds"
      )
    })
  )

  it.live("a failed program fails with its output", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(run("sh", ["-c", "echo that is wrong >&2; exit 3"]))
      assert.include(error.message, "that is wrong")
      assert.include((yield* Effect.flip(run("no-such-program", []))).message, "no-such-program")
    })
  )

  it.live("freePort returns a port of its range", () =>
    Effect.gen(function* () {
      const ports = { first: 2_000, count: 50, second: 500 }
      const port = yield* freePort(ports)
      assert.isTrue(port >= 2_000 && port < 2_050)
    })
  )
})
