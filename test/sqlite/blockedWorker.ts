/**
 * A worker process whose first run of a task blocks the event loop: `blockedWorker.ts <file of the store> <file>`. The block
 * ends when the second file exists, after two seconds at the earliest.
 */
import { existsSync } from "node:fs"
import { NodeRuntime } from "@effect/platform-node"
import { Task, TaskContext, Worker } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import { Effect, Layer, Logger, Schema } from "effect"

export const Block = Task.make("block")

export const BlockedEvent = Schema.Union([
  Schema.TaggedStruct("Ready", {}),
  Schema.TaggedStruct("Began", { attempt: Schema.Int }),
  Schema.TaggedStruct("Logged", { message: Schema.String })
])
export type BlockedEvent = typeof BlockedEvent.Type

const emit = (event: BlockedEvent) => void process.stdout.write(`${JSON.stringify(event)}\n`)

/** Blocks this thread, as a long computation does, and leaves the processor to other processes. */
const blockUntilExists = (file: string) => {
  const nothing = new Int32Array(new SharedArrayBuffer(4))
  const earliest = performance.now() + 2000
  while (performance.now() < earliest || !existsSync(file)) Atomics.wait(nothing, 0, 0, 20)
}

const main = (filename: string, released: string) =>
  Layer.effectDiscard(Effect.sync(() => emit({ _tag: "Ready" }))).pipe(
    Layer.provideMerge(Worker.layer([Block], { lease: "1 second" })),
    Layer.provide(
      Block.toLayer(() =>
        Effect.map(TaskContext.TaskContext, ({ attempt }) => {
          emit({ _tag: "Began", attempt })
          if (attempt === 1) blockUntilExists(released)
        })
      )
    ),
    Layer.provide(SqliteStore.layer({ filename })),
    Layer.provide(
      Logger.layer([
        Logger.make<unknown, void>(({ logLevel, message }) => {
          if (logLevel !== "Debug") emit({ _tag: "Logged", message: String(message) })
        })
      ])
    ),
    Layer.launch
  )

if (import.meta.main) NodeRuntime.runMain(main(process.argv[2]!, process.argv[3]!))
