/**
 * The ports, for authors of drivers. A backend driver stores results; a broker driver carries messages.
 *
 * `Backend.make` and `Broker.make` turn a driver into the service that programs use. `chicory/testing/suites`
 * has the suites that every driver passes.
 */
export type * from "../BackendDriver.ts"
export type * from "../BrokerDriver.ts"
