import { WorkerSuite } from "chicory/testing"
import { Effect } from "effect"
import { makeMemoryBackend } from "../src/internal/memoryBackend.ts"
import { makeMemoryBroker } from "../src/internal/memoryBroker.ts"
import { makeMemoryStore } from "../src/internal/memoryStore.ts"

WorkerSuite.suite("memory", { make: Effect.all({ backend: makeMemoryBackend, broker: makeMemoryBroker }) })
WorkerSuite.suite("memory, fused", { make: makeMemoryStore })
