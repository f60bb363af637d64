import { describeWithPostgres, temporaryDrivers } from "../postgres/server.ts"
import { testLive } from "./liveModel.ts"

await describeWithPostgres("the store in PostgreSQL", () => testLive({ make: temporaryDrivers() }))
