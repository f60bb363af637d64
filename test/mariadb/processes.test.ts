import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import * as TransactSuite from "../support/transactSuite.ts"
import { describeWithMariadb } from "./server.ts"

await describeWithMariadb("processes on MariaDB", () => {
  TransactSuite.killed(TemporaryPlaces.mariadb)
  TransactSuite.frozen(TemporaryPlaces.mariadb)
  TransactSuite.lockedOut(TemporaryPlaces.mariadb)
})
