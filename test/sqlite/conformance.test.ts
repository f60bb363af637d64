import { BackendSuite, BrokerSuite } from "chicory/testing"
import { Effect } from "effect"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import { temporaryFile } from "./temporary.ts"

const drivers = Effect.flatMap(temporaryFile, (filename) => SqliteStore.makeDrivers({ filename }))

BackendSuite.suite("sqlite", { make: Effect.map(drivers, ({ backend }) => backend), live: true })
BrokerSuite.suite("sqlite", { make: Effect.map(drivers, ({ broker }) => broker), live: true })
