/** The defaults of options, and the limits that hold for all tasks. */
import { Duration } from "effect"

/** Bytes of an encoded payload or result, at most. */
export const maxBytes = 4 * 1024 * 1024
/**
 * Characters of one answer of a store, at most, except that a larger item comes alone: what a network of 4 Mbit/s carries
 * within the default `callTimeout` of 5 seconds.
 */
export const maxReplySize = 2 * 1024 * 1024
/** Characters that a store keeps of the failures of a task's attempts, at most: the last ones. */
export const maxHistorySize = 16 * 1024
/** The priority of a task that sets none: 0 to 255, higher first. */
export const priority = 100
/** The queue of a task that sets none. */
export const queue = "default"
/** How long a result stays after the task's end. */
export const retention = Duration.days(1)
/** How long a dead letter stays, in milliseconds. */
export const deadLetterRetentionMillis = Duration.toMillis(Duration.days(14))
/** Crashed runs after which a task ends as `WorkerLost`. */
export const maxCrashes = 3
/** How long a claim and a run are held without a renewal. */
export const lease = Duration.seconds(30)
/** Tasks that a worker runs at a time. */
export const concurrency = 16
/** How long a stopping worker lets running tasks finish. */
export const drainTimeout = Duration.seconds(20)
/** The interval of a worker's heartbeats. */
export const heartbeat = Duration.seconds(10)
/** How long a record is reserved for its message, in milliseconds: a producer may stand still for as long between the two. */
export const reservedMillis = Duration.toMillis(Duration.hours(1))
/** How long a message waits for a worker that knows its task. */
export const unknownTaskGrace = Duration.hours(1)

/** Returns the size of a text in bytes, or a lower bound where the text surely fits the limit. */
export const bytesOf = (text: string, limit: number): number =>
  text.length * 3 <= limit ? text.length : new TextEncoder().encode(text).length
