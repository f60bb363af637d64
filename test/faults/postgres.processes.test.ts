import { describeWithPostgres } from "../postgres/server.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

await describeWithPostgres("processes on PostgreSQL", () =>
  ProcessSuites.suite("postgres", TemporaryLocations.postgres)
)
