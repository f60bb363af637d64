import { assert, describe, it } from "@effect/vitest"
import { AsyncResult, Task, Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { SqliteClient } from "chicory/sqlite"
import { Effect, Layer, Schema } from "effect"
import { captureLogs } from "../../src/testing/suites/worker/captureLogs.ts"
import { temporaryFile } from "./temporary.ts"

const Book = Task.make("book", { success: Schema.Int })
const BookLive = Book.toLayer(() =>
  Effect.andThen(Effect.orDie(SqlStore.transact(Effect.succeed(7))), Effect.die(new Error("a late bug")))
)

describe("a handler that dies after it has stored its success", () => {
  it.live("has ended its task, and leaves a line at Error", () => {
    const logs = captureLogs()
    return Effect.gen(function* () {
      const store = SqlStore.layer().pipe(
        Layer.provideMerge(SqliteClient.layer({ filename: yield* temporaryFile }))
      )
      const worker = Worker.layer([Book]).pipe(Layer.provide(BookLive), Layer.provideMerge(store))
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* AsyncResult.get(yield* Book.delay()), 7)
      }).pipe(Effect.provide(worker))
      const [line, ...more] = logs.lines.filter(({ level }) => level === "Error")
      assert.lengthOf(more, 0)
      assert.include(line?.text, "its success was stored before")
      assert.include(line?.cause, "a late bug")
    }).pipe(logs.capture)
  })
})
