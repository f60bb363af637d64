import { describeWithMariadb, temporaryDrivers } from "../mariadb/server.ts"
import { testLive } from "./liveModel.ts"

await describeWithMariadb("MariaDB", () => testLive({ make: temporaryDrivers() }))
