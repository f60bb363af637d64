import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as TransactSuite from "../support/transactSuite.ts"
import { describeWithMariadb } from "./server.ts"

await describeWithMariadb("processes on MariaDB", () => {
  TransactSuite.killed(TemporaryLocations.mariadb)
  TransactSuite.frozen(TemporaryLocations.mariadb)
  TransactSuite.lockedOut(TemporaryLocations.mariadb)
})
