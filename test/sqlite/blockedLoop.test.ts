import { writeFileSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AsyncResult } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Effect } from "effect"
import * as Processes from "../support/processes.ts"
import { Block, BlockedEvent } from "./blockedWorker.ts"
import { temporaryFile } from "./temporary.ts"

describe("guarantee 6: a process whose event loop is blocked", () => {
  it.live(
    "loses its run to another process, and the log says why",
    () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const released = `${filename}.released`
        const start = Effect.gen(function* () {
          const args = [filename, released]
          const worker = yield* Processes.start(
            Processes.program("../sqlite/blockedWorker.ts", args),
            BlockedEvent
          )
          yield* worker.until((events) => events.some(({ _tag }) => _tag === "Ready"))
          return worker
        })
        const first = yield* start
        yield* Effect.gen(function* () {
          const handle = yield* Block.delay()
          yield* first.until((events) => events.some(({ _tag }) => _tag === "Began"))
          const second = yield* start
          yield* second.until((events) =>
            events.some((event) => event._tag === "Began" && event.attempt === 2)
          )
          writeFileSync(released, "")
          yield* AsyncResult.get(handle)
          const logs = (start: string) => (event: BlockedEvent) =>
            event._tag === "Logged" && event.message.startsWith(start)
          yield* first.until(
            (events) => events.some(logs("A run was superseded")) && events.some(logs("The event loop"))
          )
        }).pipe(Effect.provide(SqliteStore.layer({ filename })))

        const lines = first.events.flatMap((event) => (event._tag === "Logged" ? [event.message] : []))
        const superseded = lines.filter((message) => message.startsWith("A run was superseded"))
        assert.lengthOf(superseded, 1)
        assert.match(
          superseded[0]!,
          /^A run was superseded, since the event loop was blocked for \d+\.\d s, longer than the lease of 1 s; its outcome is dropped/
        )
        const blocked = lines.filter((message) => message.startsWith("The event loop"))
        assert.lengthOf(blocked, 1)
        assert.match(
          blocked[0]!,
          /^The event loop was blocked for \d+\.\d s, more than a third of the lease of 1 s;/
        )
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    { timeout: 60_000 }
  )
})
