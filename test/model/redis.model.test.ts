import { describeWithRedis } from "../redis/server.ts"
import { temporaryDrivers } from "../redis/temporary.ts"
import { testLive } from "./liveModel.ts"

await describeWithRedis("Redis", () => testLive({ make: temporaryDrivers() }))
