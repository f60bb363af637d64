import { WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { makeMemoryBackend } from "../../src/memory/MemoryBackendDriver.ts"
import { makeMemoryBroker } from "../../src/memory/MemoryBrokerDriver.ts"
import { makeMemoryDrivers } from "../../src/memory/MemoryDrivers.ts"

WorkerSuite.suite("memory", { make: Effect.all({ backend: makeMemoryBackend, broker: makeMemoryBroker }) })
WorkerSuite.suite("memory, fused", { make: makeMemoryDrivers })
