import { describeWithPostgres, temporaryDrivers } from "../postgres/server.ts"
import { testLive } from "./liveModel.ts"

await describeWithPostgres("PostgreSQL", () => testLive({ make: temporaryDrivers() }))
