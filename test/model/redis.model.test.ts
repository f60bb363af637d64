import { describeWithRedis } from "../redis/server.ts"
import { temporaryDrivers } from "../redis/temporary.ts"
import { testLive } from "./liveModel.ts"

await describeWithRedis("the store in Redis", () => testLive({ make: temporaryDrivers() }))
