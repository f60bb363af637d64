/**
 * The metrics, named by OpenTelemetry's messaging conventions where these have a name. The id of a task, a payload and a
 * message of an error are never an attribute.
 *
 * Effect's exporters take the unit of a metric from its attribute `unit`, in the notation of UCUM.
 */
import { type Context, Metric } from "effect"

/** The boundaries that the conventions advise, in seconds. */
const OPERATION_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
/** Tasks run, and wait, for longer than calls take. */
const TASK_SECONDS = [...OPERATION_SECONDS, 60, 300]

/** The attributes of a series. A metric made with its attributes costs half of one that receives them at each update. */
type Attributes = Readonly<Record<string, string>>

const counter = (name: string, unit: string, description: string) => (attributes: Attributes) =>
  Metric.counter(name, { description, attributes: { ...attributes, unit }, incremental: true })
const gauge = (name: string, unit: string, description: string) => (attributes: Attributes) =>
  Metric.gauge(name, { description, attributes: { ...attributes, unit } })
const histogram =
  (name: string, boundaries: ReadonlyArray<number>, description: string) => (attributes: Attributes) =>
    Metric.histogram(name, { description, attributes: { ...attributes, unit: "s" }, boundaries })

const sent = counter("messaging.client.sent.messages", "{message}", "Messages given to the broker")
const consumed = counter(
  "messaging.client.consumed.messages",
  "{message}",
  "Messages claimed from the broker"
)
const operation = histogram(
  "messaging.client.operation.duration",
  OPERATION_SECONDS,
  "Seconds that a call to the broker took"
)
const processed = histogram("messaging.process.duration", TASK_SECONDS, "Seconds that a handler ran")
const queued = histogram(
  "chicory.task.time_in_queue",
  TASK_SECONDS,
  "Seconds between a message's due time and its claim"
)
const retries = counter("chicory.task.retries", "{retry}", "Retries that were granted")
const deadLetters = counter("chicory.task.dead_letters", "{dead_letter}", "Dead letters that workers wrote")
const leasesLost = counter("chicory.worker.leases_lost", "{lease}", "Runs whose lease was lost")
const duplicates = counter(
  "chicory.worker.duplicates_suppressed",
  "{message}",
  "Deliveries of tasks that had ended or ran elsewhere"
)
const running = gauge("chicory.worker.running", "{task}", "Tasks that a worker runs now")
const slots = gauge("chicory.worker.slots", "{task}", "Tasks that a worker runs at most at a time")
const waiters = gauge(
  "chicory.result.live_waiters",
  "{waiter}",
  "Fibers that wait for a result by way of hints"
)
const depth = gauge("chicory.queue.depth", "{message}", "Messages in a queue, by state")
const oldestAge = gauge(
  "chicory.queue.oldest_age",
  "s",
  "Seconds since the longest due message of a queue became due"
)
const deadLetterCount = gauge(
  "chicory.dead_letter.count",
  "{dead_letter}",
  "Dead letters that the backend keeps"
)

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

/**
 * Queues with metrics of their own, in a process and of a task. A registry keeps every series: a queue for each customer
 * would fill it.
 */
const MAX_QUEUES = 1000

/** Tasks that a worker does not know, with series of their own: messages of other programs may name any. */
const MAX_UNKNOWN_TASKS = 1000

/** Types of errors with series of their own. A tag that is computed would fill a registry. */
const MAX_ERROR_TYPES = 100

/** What OpenTelemetry calls the series of all attributes beyond its own limit. */
const OVERFLOW: Attributes = { "otel.metric.overflow": "true" }

/** Memoizes what is made of the attributes of a queue. The queues beyond the limit share the attributes of an overflow. */
const memoizedByQueue = <A>(make: (destination: Attributes) => A): ((queue: string) => A) =>
  memoized((queue) => make({ "messaging.destination.name": queue }), {
    limit: MAX_QUEUES,
    shared: () => make(OVERFLOW)
  })

/** Memoizes what is made of the attributes of an error's type; the empty type is that of a success. */
const memoizedByErrorType = <A>(make: (error: Attributes) => A): ((errorType: string) => A) =>
  memoized((errorType) => make(errorType === "" ? {} : { "error.type": errorType }), {
    limit: MAX_ERROR_TYPES,
    // what OpenTelemetry calls an error without a type
    shared: () => make({ "error.type": "_OTHER" })
  })

const operationAttributes = (name: string, type: string | undefined): Attributes => ({
  "messaging.operation.name": name,
  ...(type === undefined ? {} : { "messaging.operation.type": type })
})

const SEND = operationAttributes("send", "send")
const CLAIM = operationAttributes("claim", "receive")
const PROCESS = operationAttributes("process", "process")

/** The types of the ports' operations; the others have none. */
const OPERATION_TYPES: Readonly<Record<string, string>> = {
  publish: "send",
  enqueue: "send",
  claim: "receive",
  "setAside.claim": "receive",
  ack: "settle",
  release: "settle",
  reject: "settle",
  returnUnhandled: "settle",
  settle: "settle"
}

const forBroker = memoized((system) => {
  const broker: Attributes = { "messaging.system": system }
  return {
    queue: memoizedByQueue((destination) => {
      const attributes = { ...broker, ...destination }
      return {
        sent: sent({ ...attributes, ...SEND }),
        consumed: consumed({ ...attributes, ...CLAIM }),
        queued: queued(attributes),
        duplicates: duplicates(attributes)
      }
    }),
    operation: memoized((name) =>
      memoizedByErrorType((error) =>
        operation({ ...broker, ...operationAttributes(name, OPERATION_TYPES[name]), ...error })
      )
    ),
    deadLetters: memoized(
      (task) => deadLetters(task === "" ? broker : { ...broker, "chicory.task.name": task }),
      {
        limit: MAX_UNKNOWN_TASKS,
        shared: () => deadLetters({ ...broker, ...OVERFLOW })
      }
    ),
    task: memoized((task) => {
      const attributes = { ...broker, "chicory.task.name": task }
      return {
        processed: memoizedByQueue((destination) =>
          memoizedByErrorType((error) => processed({ ...attributes, ...destination, ...PROCESS, ...error }))
        ),
        retries: retries(attributes),
        deadLetters: deadLetters(attributes),
        leasesLost: leasesLost(attributes)
      }
    })
  }
})

/** Returns the metrics of a broker's queue. */
export const forQueue = (system: string, queue: string) => forBroker(system).queue(queue)

/** Returns the metric of a broker's operation; `errorType` is empty for a success. */
export const forOperation = (system: string, name: string, errorType: string) =>
  forBroker(system).operation(name)(errorType)

/** Returns the metrics of a broker's task. */
export const forTask = (system: string, task: string) => forBroker(system).task(task)

/** Returns the counter of the dead letters of a task that a worker may not know; `undefined`: of no task. */
export const deadLettersOf = (system: string, task: string | undefined) =>
  forBroker(system).deadLetters(task ?? "")

/**
 * Begins the counters of a worker's tasks at zero. A series that begins with its first event has no increase for Prometheus, which
 * compares a value with the one before.
 */
export const beginCounters = (
  system: string,
  tasks: Iterable<string>,
  context: Context.Context<never>
): void => {
  for (const name of tasks) {
    const { deadLetters, leasesLost, retries } = forTask(system, name)
    for (const counter of [deadLetters, leasesLost, retries]) counter.updateUnsafe(0, context)
  }
}

/** Returns the gauges of a worker. */
export const forWorker = (system: string, worker: string) => {
  const attributes = { "messaging.system": system, "chicory.worker.id": worker }
  return { running: running(attributes), slots: slots(attributes) }
}

/** Returns the gauges of the messages in a broker's queue. */
export const forDepth = (system: string, queue: string) => {
  const attributes = { "messaging.system": system, "messaging.destination.name": queue }
  const inState = (state: string) => depth({ ...attributes, "chicory.message.state": state })
  return {
    ready: inState("ready"),
    delayed: inState("delayed"),
    claimed: inState("claimed"),
    setAside: inState("set_aside"),
    parked: inState("parked"),
    oldestAge: oldestAge(attributes)
  }
}

/** Returns the gauge of a backend's dead letters, of one task or of all. */
export const forDeadLetters = (backend: string, task: string | undefined) =>
  deadLetterCount({
    "chicory.backend": backend,
    ...(task === undefined ? {} : { "chicory.task.name": task })
  })

/** Returns the gauge of a backend's waiters. */
export const liveWaiters = (backend: string) => waiters({ "chicory.backend": backend })
