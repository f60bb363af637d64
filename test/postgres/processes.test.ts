import * as ProcessSuite from "../support/processSuite.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import * as TransactSuite from "../support/transactSuite.ts"
import { describeWithPostgres } from "./server.ts"

await describeWithPostgres("processes on PostgreSQL", () => {
  ProcessSuite.suite(TemporaryPlaces.postgres)
  TransactSuite.killed(TemporaryPlaces.postgres)
  TransactSuite.frozen(TemporaryPlaces.postgres)
  TransactSuite.lockedOut(TemporaryPlaces.postgres)
})
