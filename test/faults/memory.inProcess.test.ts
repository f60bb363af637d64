import * as Deployments from "./deployments.ts"
import * as KillSuite from "./killSuite.ts"

KillSuite.suite("memory", Deployments.inMemory, { leaseMillis: 500 })
