/**
 * Conformance suites for authors of drivers.
 *
 * **Details**
 *
 * The suites register tests with `vitest` and `@effect/vitest`, which the caller installs.
 *
 * @module chicory/testing/suites
 */

/** The tests of a `BackendDriver`. */
export * as BackendSuite from "./BackendSuite.ts"

/** The tests of a `BrokerDriver`. */
export * as BrokerSuite from "./BrokerSuite.ts"

/** The tests of a backend and a broker together, with workers over both. */
export * as WorkerSuite from "./WorkerSuite.ts"
