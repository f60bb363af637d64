/**
 * Conformance suites for those who write a driver. They register tests with `vitest` and `@effect/vitest`, which
 * the caller installs.
 *
 * @module chicory/testing/suites
 */

/** What every `BackendDriver` is held to. */
export * as BackendSuite from "./BackendSuite.ts"

/** What every `BrokerDriver` is held to. */
export * as BrokerSuite from "./BrokerSuite.ts"

/** What every pairing of the two is held to, with workers over it. */
export * as WorkerSuite from "./WorkerSuite.ts"
