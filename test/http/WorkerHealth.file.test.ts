/** `WorkerHealth.layerFile`: the file, and the commands of its documentation. */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, utimesSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { MemoryStore, Task, Worker } from "chicory"
import { WorkerHealth } from "chicory/http"
import { Duration, Effect, Exit, Fiber, Latch, Layer, Logger, Schedule, Scope } from "effect"
import { writeHealth } from "../../src/http/healthFile.ts"
import { temporaryDirectory } from "../support/ownServers.ts"

const Gated = Task.make("gated")

const READY: Worker.Health = { live: true, ready: true, code: "Ready" }

const temporaryFile = Effect.map(temporaryDirectory("health"), (directory) =>
  join(directory, "worker.health")
)
const read = (path: string) => JSON.parse(readFileSync(path, "utf8")) as Worker.Health

/** Waits for something that happens in real time. */
const until = (check: () => boolean) =>
  Effect.repeat(Effect.sync(check), { until: (isTrue) => isTrue, schedule: Schedule.spaced("5 millis") })

/** The commands in the documentation of `layerFile`, as a shell gets them. */
const documented = (path: string) => {
  const source = readFileSync(join(import.meta.dirname, "../../src/http/WorkerHealth.ts"), "utf8")
  const commands = Array.from(source.matchAll(/command: \[sh, -c, (".*")\]/g), ([, command]) =>
    (JSON.parse(command!) as string).replace("/tmp/worker.health", path)
  )
  assert.lengthOf(commands, 2)
  const passes = (command: string) => spawnSync("sh", ["-c", command]).status === 0
  return { live: passes(commands[0]!), ready: passes(commands[1]!) }
}

const minutesAgo = (minutes: number) => new Date(Date.now() - minutes * 60_000)

describe("WorkerHealth.layerFile", () => {
  it.live("keeps a file while the workers run, and removes it when they have stopped", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFile
      const gate = yield* Latch.make(false)
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(
        Worker.layer([Gated]).pipe(
          WorkerHealth.layerFile({ path, every: "10 millis" }),
          Layer.provide(Gated.toLayer(() => gate.await)),
          Layer.provideMerge(MemoryStore.layer())
        ),
        scope
      )
      yield* until(() => read(path).ready)
      assert.deepStrictEqual(read(path), READY)
      assert.deepStrictEqual(documented(path), { live: true, ready: true })
      // it is written again
      utimesSync(path, minutesAgo(2), minutesAgo(2))
      yield* until(() => documented(path).live)

      yield* Effect.provideContext(Gated.delay(), services)
      const worker = yield* Effect.provideContext(Worker.Worker, services)
      yield* Effect.repeat(worker.stats, { until: ({ running }) => running === 1 })
      const stopping = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* until(() => read(path).code === "Draining")
      assert.deepStrictEqual(read(path), { live: true, ready: false, code: "Draining" })
      assert.deepStrictEqual(documented(path), { live: true, ready: false })
      yield* gate.open
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(readdirSync(dirname(path)), [])
      assert.deepStrictEqual(documented(path), { live: false, ready: false })
    })
  )

  it.live("leaves a file of a process that was killed, which is too old after a minute", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFile
      const scope = yield* Scope.make()
      yield* Scope.provide(writeHealth(Effect.succeed(READY), path, Duration.hours(1)), scope)
      utimesSync(path, minutesAgo(2), minutesAgo(2))
      assert.deepStrictEqual(documented(path), { live: false, ready: false })
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.live("writes no file while the workers are not live", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFile
      let health: Worker.Health = READY
      let reads = 0
      const reading = Effect.sync(() => {
        reads++
        return health
      })
      yield* writeHealth(reading, path, Duration.millis(5))
      health = { live: false, ready: false, code: "Stuck" }
      const before = reads
      yield* until(() => reads > before + 1)
      utimesSync(path, minutesAgo(2), minutesAgo(2))
      const later = reads
      yield* until(() => reads > later + 1)
      assert.deepStrictEqual(documented(path), { live: false, ready: false })
      assert.deepStrictEqual(read(path), READY)
    })
  )

  it.live("fails where the file cannot be written, and says what it needs", () =>
    Effect.gen(function* () {
      const path = join(dirname(yield* temporaryFile), "missing/worker.health")
      const layer = Worker.layer([Gated]).pipe(
        WorkerHealth.layerFile({ path }),
        Layer.provide(Gated.toLayer(() => Effect.void)),
        Layer.provide(MemoryStore.layer())
      )
      const error = yield* Effect.flip(Layer.build(layer))
      assert.instanceOf(error, WorkerHealth.FileError)
      assert.include(error.message, `Failed to write the health file ${path}: Error: ENOENT`)
      assert.include(error.message, "Its directory has to exist")
    })
  )

  it.live("logs once that it cannot be written any more, and writes it again", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFile
      const directory = dirname(path)
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        lines.push(`${logLevel}: ${String(message)}`)
      })
      let reads = 0
      const reading = Effect.sync(() => {
        reads++
        return READY
      })
      yield* Effect.provide(writeHealth(reading, path, Duration.millis(5)), Logger.layer([logger]))
      renameSync(directory, `${directory}.away`)
      const before = reads
      yield* until(() => reads > before + 3)
      mkdirSync(directory)
      rmSync(`${directory}.away`, { recursive: true })
      yield* until(() => existsSync(path))
      assert.lengthOf(lines, 1)
      assert.match(lines[0]!, /^Warn: Failed to write the health file .*; trying again/)
    })
  )
})
