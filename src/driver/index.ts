/**
 * The ports, for authors of drivers: a backend driver keeps results, a broker driver carries messages.
 *
 * `Backend.make` and `Broker.make` turn a driver into the service that programs use, `Backend.layer` and `Broker.layer`
 * into its layer. `chicory/testing/suites` has the suites that every driver passes.
 *
 * @since 0.1.0
 * @module chicory/driver
 */
export type * from "../BackendDriver.ts"
export type * from "../BrokerDriver.ts"
export { deadLetterId } from "../internal/driver/deadLetterId.ts"
export { startFromDefaults } from "../internal/driver/startFromDefaults.ts"

/**
 * Bytes of a message's body, at most: one that is larger is of another program, and is not to be carried to a worker.
 *
 * @see `Delivery.oversizedBytes`
 *
 * @category constants
 * @since 0.1.0
 */
export { maxMessageBytes } from "../internal/driver/maxMessageBytes.ts"

/**
 * Characters that an answer has at most, besides its first item: see `BackendDriver.read` and `BrokerDriver.claim`.
 *
 * @category constants
 * @since 0.1.0
 */
export { maxReplySize } from "../internal/defaults.ts"

/**
 * Characters of the history of a task that a store keeps, at most: the last ones. See `BackendDriver.readHistory`.
 *
 * @category constants
 * @since 0.1.0
 */
export { maxHistorySize } from "../internal/defaults.ts"
