import { describeWithPostgres } from "../postgres/server.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

await describeWithPostgres("processes on PostgreSQL", () =>
  ProcessSuites.suite("postgres", TemporaryPlaces.postgres)
)
