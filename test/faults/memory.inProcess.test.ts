import * as Sites from "./deployments.ts"
import * as KillSuite from "./killSuite.ts"

KillSuite.suite("memory", Sites.inMemory, { leaseMillis: 500 })
