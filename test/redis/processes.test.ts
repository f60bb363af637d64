import * as ProcessSuite from "../support/processSuite.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import { describeWithRedis } from "./server.ts"

await describeWithRedis("processes on Redis", () => ProcessSuite.suite(TemporaryPlaces.redis))
