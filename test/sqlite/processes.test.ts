import { type ChildProcessByStdio, spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { DatabaseSync } from "node:sqlite"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Queue, type Scope, Stream } from "effect"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import { temporaryFile } from "./temporary.ts"

const script = fileURLToPath(new URL("child.ts", import.meta.url))

interface Child {
  readonly process: ChildProcessByStdio<Writable, Readable, null>
  readonly write: (line: string) => Effect.Effect<void>
  readonly read: Effect.Effect<string>
}

const child = (what: string, filename: string): Effect.Effect<Child, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [script, what, filename], { stdio: ["pipe", "pipe", "inherit"] })
      ),
      (running) => Effect.sync(() => running.kill("SIGKILL"))
    ),
    (running) => {
      const lines = createInterface({ input: running.stdout })[Symbol.asyncIterator]()
      return {
        process: running,
        write: (line) => Effect.sync(() => void running.stdin.write(`${line}\n`)),
        read: Effect.map(
          Effect.promise(() => lines.next()),
          (line) => String(line.value)
        )
      }
    }
  )

const now = () => performance.timeOrigin + performance.now()
const median = (values: Array<number>): number => values.sort((a, b) => a - b)[values.length >> 1]!
const ids = Array.from({ length: 15 }, (_, index) => `task-${index}`)

describe("sqlite: several processes", () => {
  it.live("that start at once on an empty file apply each migration once", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const codes = yield* Effect.forEach(
        Array.from({ length: 8 }),
        () =>
          Effect.flatMap(child("open", filename), ({ process }) =>
            Effect.promise(async () => (await once(process, "exit"))[0] as number)
          ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        codes,
        Array.from({ length: 8 }, () => 0)
      )
      const database = new DatabaseSync(filename)
      const applied = database.prepare("SELECT version FROM chicory_schema").all()
      database.close()
      assert.deepStrictEqual(
        applied.map((row) => row["version"]),
        [1]
      )
    })
  )

  it.live("that write at once wait for each other, and each message goes to one of them", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { broker } = yield* SqliteStore.makeDrivers({ filename })
      const all = Arr.map(Arr.range(1, 3000), (n) => `message-${n}`)
      yield* broker.publish(
        Arr.map(all, (id) => ({ id, task: "t", queue: "q", priority: 0, delayMillis: 0, body: "{}" }))
      )
      const drained = yield* Effect.forEach(
        Array.from({ length: 3 }),
        () =>
          Effect.flatMap(child("drain", filename), ({ read }) =>
            Effect.map(Effect.andThen(read, read), (line) => JSON.parse(line) as Array<string>)
          ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(drained.flat().toSorted(), all.toSorted())
    })
  )

  it.live("a message of another process wakes a consumer within milliseconds", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { broker } = yield* SqliteStore.makeDrivers({ filename })
      const woken = yield* Queue.unbounded<number>()
      yield* broker.ready(["q"]).pipe(
        Stream.runForEach(() =>
          Effect.gen(function* () {
            const at = now()
            const claimed = yield* broker.claim({ queues: ["q"], max: 10, leaseMillis: 60_000, worker: "w" })
            if (claimed.length > 0) yield* Queue.offer(woken, at)
          })
        ),
        Effect.forkScoped
      )
      const other = yield* child("publish", filename)
      yield* other.read
      const latencies: Array<number> = []
      for (const id of ids) {
        yield* other.write(id)
        const sent = Number(yield* other.read)
        latencies.push((yield* Queue.take(woken)) - sent)
        yield* Effect.sleep(20)
      }
      assert.isBelow(median(latencies), 50)
    })
  )

  it.live("a task that ends in another process is hinted within milliseconds", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { backend } = yield* SqliteStore.makeDrivers({ filename })
      const hinted = yield* Queue.unbounded<readonly [at: number, ids: ReadonlyArray<string> | "resync"]>()
      yield* Stream.runForEach(backend.hints!, (hint) => Queue.offer(hinted, [now(), hint])).pipe(
        Effect.forkScoped
      )
      const other = yield* child("settle", filename)
      yield* other.read
      const latencies: Array<number> = []
      for (const id of ids) {
        yield* backend.watch([id])
        yield* other.write(id)
        const settled = Number(yield* other.read)
        while (true) {
          const [record] = yield* backend.getMany([id])
          const [at, hint] = yield* Queue.take(hinted)
          if (hint === "resync" || !hint.includes(id) || at < settled) continue
          assert.notStrictEqual(record?.state, "PENDING")
          latencies.push(at - settled)
          break
        }
        yield* backend.unwatch([id])
        yield* Effect.sleep(20)
      }
      assert.isBelow(median(latencies), 50)
    })
  )

  it.live("a cancel in another process is hinted without a watch", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { backend } = yield* SqliteStore.makeDrivers({ filename })
      const hinted = yield* Queue.unbounded<string>()
      yield* Stream.runForEach(backend.hints!, (hint) =>
        hint === "resync" ? Effect.void : Queue.offerAll(hinted, hint)
      ).pipe(Effect.forkScoped)
      yield* backend.create([
        {
          id: "a",
          task: "t",
          key: undefined,
          payloadHash: "",
          expiresMillis: undefined,
          retentionMillis: undefined,
          published: true
        }
      ])
      const other = yield* child("cancel", filename)
      yield* other.read
      yield* other.write("a")
      assert.strictEqual(yield* Queue.take(hinted), "a")
    })
  )

  it.live("without a watcher nothing is left for other processes", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const { backend } = yield* SqliteStore.makeDrivers({ filename })
      const other = yield* child("settle", filename)
      yield* other.read
      yield* other.write("a")
      yield* other.read
      assert.strictEqual((yield* backend.getMany(["a"]))[0]?.state, "SUCCESS")
      const database = new DatabaseSync(filename)
      const left = database.prepare("SELECT COUNT(*) AS count FROM chicory_changes").get()
      database.close()
      assert.strictEqual(left?.["count"], 0)
    })
  )
})
