import { WorkerSuite } from "chicory/testing"
import { Effect } from "effect"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import { temporaryFile } from "./temporary.ts"

WorkerSuite.suite("sqlite", {
  make: Effect.flatMap(temporaryFile, (filename) => SqliteStore.makeDrivers({ filename })),
  live: true
})
