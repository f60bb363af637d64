import { SqliteStore } from "chicory/sqlite"
import * as ProcessSuite from "../support/processSuite.ts"
import * as temporaryLocations from "../support/temporaryLocations.ts"
import * as TransactSuite from "../support/transactSuite.ts"

ProcessSuite.suite(temporaryLocations.sqlite, SqliteStore.layer)
TransactSuite.killed(temporaryLocations.sqlite)
