import { describeWithMariadb, temporaryDrivers } from "../mariadb/server.ts"
import { testLive } from "./liveModel.ts"

await describeWithMariadb("the store in MariaDB", () => testLive({ make: temporaryDrivers() }))
