import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"

/** A path for a database in a new directory, which is removed with the scope. */
export const temporaryFile: Effect.Effect<string, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "chicory-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ),
  (directory) => join(directory, "tasks.db")
)

/** The drivers of a store over a new file. */
export const temporaryDrivers = Effect.flatMap(temporaryFile, (filename) =>
  SqliteStore.makeDrivers({ filename })
)
