import { describeWithMariadb } from "../mariadb/server.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

await describeWithMariadb("processes on MariaDB", () =>
  ProcessSuites.suite("mariadb", TemporaryLocations.mariadb)
)
