/** The numbers that hold where nobody says otherwise. */
import { Duration } from "effect"

/** Bytes of an encoded payload, or of an encoded result. */
export const maxBytes = 4 * 1024 * 1024
/** The priority of a task that asks for none: 0 to 255, higher first. */
export const priority = 100
/** The queue of a task that names none. */
export const queue = "default"
/** How long a result stays after the task's end. */
export const retention = Duration.days(1)
/** How long a dead letter stays, in milliseconds. */
export const deadLetterRetentionMillis = Duration.toMillis(Duration.days(14))
/** Runs that vanished with their worker before the task ends as `WorkerLost`. */
export const maxCrashes = 3
/** How long a claim and a run are held without a sign of life. */
export const lease = Duration.seconds(30)
/** Tasks that a worker runs at once. */
export const concurrency = 16
/** How long running tasks may take to finish when a worker stops. */
export const drainTimeout = Duration.seconds(20)
/** How often a worker says that it is there. */
export const heartbeat = Duration.seconds(10)
/** How long a message waits for a worker that knows its task. */
export const unknownTaskGrace = Duration.minutes(5)

/** The size of a text in bytes, or less if that is surely under the limit. */
export const bytesOf = (text: string): number =>
  text.length * 3 <= maxBytes ? text.length : new TextEncoder().encode(text).length
