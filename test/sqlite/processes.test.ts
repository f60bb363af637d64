import { SqliteStore } from "chicory/sqlite"
import * as ProcessSuite from "../support/processSuite.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import * as TransactSuite from "../support/transactSuite.ts"

ProcessSuite.suite(TemporaryPlaces.sqlite, SqliteStore.layer)
TransactSuite.killed(TemporaryPlaces.sqlite)
