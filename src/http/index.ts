/**
 * What a process answers over HTTP: probes of its workers.
 *
 * @since 0.1.0
 * @module chicory/http
 */

/**
 * Answers probes of the workers of a process.
 *
 * @since 0.1.0
 */
export * as WorkerHealth from "./WorkerHealth.ts"
