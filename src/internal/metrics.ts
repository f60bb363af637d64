/**
 * What is measured, by OpenTelemetry's messaging conventions where they have a name for it. Durations are in
 * seconds. A task's id is never an attribute.
 */
import { Metric } from "effect"

const boundaries = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 60, 300]

const sent = Metric.counter("messaging.client.sent.messages", {
  description: "Messages given to the broker",
  incremental: true
})
const consumed = Metric.counter("messaging.client.consumed.messages", {
  description: "Messages claimed from the broker",
  incremental: true
})
const operation = Metric.histogram("messaging.client.operation.duration", {
  description: "Seconds that a call to the broker took",
  boundaries
})
const processed = Metric.histogram("messaging.process.duration", {
  description: "Seconds that a handler ran",
  boundaries
})
const queued = Metric.histogram("chicory.task.time_in_queue", {
  description: "Seconds between a message's due time and its claim",
  boundaries
})
const retries = Metric.counter("chicory.task.retries", {
  description: "Retries that were granted",
  incremental: true
})
const deadLetters = Metric.counter("chicory.task.dead_letters", {
  description: "Dead letters that workers wrote",
  incremental: true
})
const leasesLost = Metric.counter("chicory.worker.leases_lost", {
  description: "Runs whose lease was lost",
  incremental: true
})
const duplicates = Metric.counter("chicory.worker.duplicates_suppressed", {
  description: "Deliveries of tasks that had ended or ran elsewhere",
  incremental: true
})
const waiters = Metric.counter("chicory.result.live_waiters", {
  description: "Fibers that wait for a result by way of hints"
})
const depth = Metric.gauge("chicory.queue.depth", {
  description: "Messages in a queue, by state"
})

/** Making a metric costs more than using it, so what is made is kept. */
const kept = <Args extends ReadonlyArray<string>, A>(make: (...args: Args) => A): ((...args: Args) => A) => {
  const made = new Map<string, A>()
  return (...args) => {
    const key = args.join("\n")
    let metric = made.get(key)
    if (metric === undefined) made.set(key, (metric = make(...args)))
    return metric
  }
}

/** Of a broker and one of its queues. */
export const forQueue = kept((system: string, queue: string) => {
  const attributes = { "messaging.system": system, "messaging.destination.name": queue }
  const state = (name: string) => Metric.withAttributes(depth, { ...attributes, state: name })
  return {
    sent: Metric.withAttributes(sent, attributes),
    consumed: Metric.withAttributes(consumed, attributes),
    queued: Metric.withAttributes(queued, attributes),
    duplicates: Metric.withAttributes(duplicates, attributes),
    ready: state("ready"),
    delayed: state("delayed"),
    claimed: state("claimed")
  }
})

/** Of a broker and one of its operations. */
export const forOperation = kept((system: string, name: string) =>
  Metric.withAttributes(operation, { "messaging.system": system, "messaging.operation.name": name })
)

/** Of a task; the error's type is the tag of the reason why it failed, or empty. */
export const forTask = kept((task: string) => {
  const attributes = { "chicory.task.name": task }
  return {
    processed: kept((errorType: string) =>
      Metric.withAttributes(
        processed,
        errorType === "" ? attributes : { ...attributes, "error.type": errorType }
      )
    ),
    retries: Metric.withAttributes(retries, attributes),
    deadLetters: Metric.withAttributes(deadLetters, attributes),
    leasesLost: Metric.withAttributes(leasesLost, attributes)
  }
})

/** Of a backend. */
export const liveWaiters = (system: string) => Metric.withAttributes(waiters, { "chicory.backend": system })
