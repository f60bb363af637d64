/**
 * Runs a step of the backend and one of the broker together: in one transaction, or in one statement where the database
 * allows it.
 */
import type { Fusion } from "../../BackendDriver.ts"
import type { BackendParts } from "../backend/SqlBackendDriver.ts"
import type { BrokerParts } from "../broker/SqlBrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import { makeClaim } from "./claim.ts"
import { makeEnqueue } from "./enqueue.ts"
import { makeSettle } from "./settle.ts"

/** Makes the fused operations of a backend and a broker in the same tables. */
export const make = (backend: BackendParts, broker: BrokerParts, store: object): Fusion<StoreError> => ({
  store,
  enqueue: makeEnqueue(backend, broker),
  claim: makeClaim(backend, broker),
  settle: makeSettle(backend, broker)
})
