import * as KillSuite from "./killSuite.ts"
import * as Sites from "./sites.ts"

KillSuite.suite("memory", Sites.inMemory, { leaseMillis: 500 })
