import { describeWithPostgres, temporaryDrivers } from "../postgres/server.ts"
import { testLive } from "./live.ts"

await describeWithPostgres("the store in PostgreSQL", () => testLive({ make: temporaryDrivers() }))
