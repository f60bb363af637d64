/**
 * The metrics, named by OpenTelemetry's messaging conventions where these have a name. Durations are in seconds. The
 * id of a task is never an attribute.
 */
import { Metric } from "effect"

const boundaries = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 60, 300]

/** The attributes of a series. A metric made with its attributes costs half of one that receives them at each update. */
type Attributes = Readonly<Record<string, string>>

const counter = (name: string, description: string) => (attributes: Attributes) =>
  Metric.counter(name, { description, attributes, incremental: true })
const histogram = (name: string, description: string) => (attributes: Attributes) =>
  Metric.histogram(name, { description, attributes, boundaries })

const sent = counter("messaging.client.sent.messages", "Messages given to the broker")
const consumed = counter("messaging.client.consumed.messages", "Messages claimed from the broker")
const operation = histogram("messaging.client.operation.duration", "Seconds that a call to the broker took")
const processed = histogram("messaging.process.duration", "Seconds that a handler ran")
const queued = histogram("chicory.task.time_in_queue", "Seconds between a message's due time and its claim")
const retries = counter("chicory.task.retries", "Retries that were granted")
const deadLetters = counter("chicory.task.dead_letters", "Dead letters that workers wrote")
const leasesLost = counter("chicory.worker.leases_lost", "Runs whose lease was lost")
const duplicates = counter(
  "chicory.worker.duplicates_suppressed",
  "Deliveries of tasks that had ended or ran elsewhere"
)
const depth = (attributes: Attributes) =>
  Metric.gauge("chicory.queue.depth", { description: "Messages in a queue, by state", attributes })

/** Memoizes by name: making a metric costs more than updating it. The names beyond a limit share what `shared` makes. */
const memoized = <A>(
  make: (name: string) => A,
  beyond?: { readonly limit: number; readonly shared: () => A }
): ((name: string) => A) => {
  const made = new Map<string, A>()
  let sharedMade: A | undefined
  return (name) => {
    let metric = made.get(name)
    if (metric !== undefined) return metric
    if (beyond !== undefined && made.size >= beyond.limit) return (sharedMade ??= beyond.shared())
    made.set(name, (metric = make(name)))
    return metric
  }
}

/** Queues with metrics of their own in a process. A registry keeps every series: a queue for each customer would fill it. */
const MAX_QUEUES = 1000

const ofQueue = (attributes: Attributes) => ({
  sent: sent(attributes),
  consumed: consumed(attributes),
  queued: queued(attributes),
  duplicates: duplicates(attributes)
})

const depthsOf = (attributes: Attributes) => {
  const state = (name: string) => depth({ ...attributes, state: name })
  return { ready: state("ready"), delayed: state("delayed"), claimed: state("claimed") }
}

/** The metrics of a queue. The queues that share their series have no depths, which would overwrite each other. */
interface QueueMetrics extends ReturnType<typeof ofQueue> {
  readonly depths: ReturnType<typeof depthsOf> | undefined
}

const forBroker = memoized((system) => ({
  queue: memoized(
    (queue): QueueMetrics => {
      const attributes = { "messaging.system": system, "messaging.destination.name": queue }
      return { ...ofQueue(attributes), depths: depthsOf(attributes) }
    },
    {
      limit: MAX_QUEUES,
      // what OpenTelemetry calls the series of all attributes beyond its own limit
      shared: () => ({
        ...ofQueue({ "messaging.system": system, "otel.metric.overflow": "true" }),
        depths: undefined
      })
    }
  ),
  operation: memoized((name) => operation({ "messaging.system": system, "messaging.operation.name": name }))
}))

/** Returns the metrics of a broker's queue. */
export const forQueue = (system: string, queue: string) => forBroker(system).queue(queue)

/** Returns the metric of a broker's operation. */
export const forOperation = (system: string, name: string) => forBroker(system).operation(name)

/** Returns the metrics of a task. */
export const forTask = memoized((task) => {
  const attributes = { "chicory.task.name": task }
  return {
    /** `errorType` is the tag of the reason for a failure, and empty for a success. */
    processed: memoized((errorType) =>
      processed(errorType === "" ? attributes : { ...attributes, "error.type": errorType })
    ),
    retries: retries(attributes),
    deadLetters: deadLetters(attributes),
    leasesLost: leasesLost(attributes)
  }
})

/** Returns the metric of a backend's waiters. */
export const liveWaiters = (system: string) =>
  Metric.counter("chicory.result.live_waiters", {
    description: "Fibers that wait for a result by way of hints",
    attributes: { "chicory.backend": system }
  })
