import { describeWithRedis } from "../redis/server.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

await describeWithRedis("processes on Redis", () => ProcessSuites.suite("redis", TemporaryLocations.redis))
