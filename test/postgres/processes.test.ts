import * as ProcessSuite from "../support/processSuite.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as TransactSuite from "../support/transactSuite.ts"
import { describeWithPostgres } from "./server.ts"

await describeWithPostgres("processes on PostgreSQL", () => {
  ProcessSuite.suite(TemporaryLocations.postgres)
  TransactSuite.killed(TemporaryLocations.postgres)
  TransactSuite.frozen(TemporaryLocations.postgres)
  TransactSuite.lockedOut(TemporaryLocations.postgres)
})
