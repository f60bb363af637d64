import * as processSuite from "../support/processSuite.ts"
import * as temporaryLocations from "../support/temporaryLocations.ts"
import { describeWithRedis } from "./server.ts"

await describeWithRedis("processes on Redis", () => processSuite.suite(temporaryLocations.redis))
