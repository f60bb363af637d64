/**
 * Helpers for tests of programs that use Chicory. The suites for authors of drivers are in `chicory/testing/suites`.
 *
 * @since 0.1.0
 * @module
 */

/**
 * Layers for tests.
 *
 * @since 0.1.0
 */
export * as Testing from "./Testing.ts"
