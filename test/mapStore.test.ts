/** The store of docs/writing-a-store.md passes the conformance suites. */
import { BackendSuite, BrokerSuite, WorkerSuite } from "chicory/testing/suites"
import { Effect } from "effect"
import { makeMapBackend } from "../examples/map-store/MapBackendDriver.ts"
import { makeMapBroker } from "../examples/map-store/MapBrokerDriver.ts"

BackendSuite.suite("map", { make: makeMapBackend })
BrokerSuite.suite("map", { make: makeMapBroker })
WorkerSuite.suite("map", { make: Effect.all({ backend: makeMapBackend, broker: makeMapBroker }) })
