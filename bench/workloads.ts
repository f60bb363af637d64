import type { Process, Processes } from "./processes.ts"
import type { FewerTasks } from "./results.ts"

export interface Metric {
  readonly name: string
  readonly what: string
  readonly unit: "tasks/s" | "ms" | "s" | "requests/s"
}

/** What one measurement found. */
export interface Measurement {
  /** The values in the order of the metrics; `undefined` if the system cannot do it. */
  readonly values: ReadonlyArray<number | undefined>
  /** Set if the system was too slow for all tasks of the workload. */
  readonly fewer?: FewerTasks | undefined
}

/** How much a measurement does. */
export interface Extent {
  /** Scales a number of tasks. */
  readonly size: (count: number) => number
  /** Milliseconds that a warm-up takes at most. A system that does not get through it is measured on fewer tasks. */
  readonly warmUpMillis: number
}

export interface Workload {
  readonly metrics: ReadonlyArray<Metric>
  readonly counted?: boolean
  /** Needs no process for a worker. */
  readonly producerOnly?: boolean
  readonly measure: (processes: Processes, extent: Extent) => Promise<Measurement>
}

const perSecond = (count: number, millis: number | undefined) =>
  millis === undefined ? undefined : (count / millis) * 1000

const percentile = (sorted: ReadonlyArray<number>, p: number): number | undefined =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]

const ascending = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)

/** How many times the measured work is done before it is measured, so that it shows a process that has run for seconds. */
const WARM_UP = 3

const fewerThan = (of: number, measured: number): FewerTasks | undefined =>
  measured < of ? { measured, of } : undefined

/**
 * Warms up: `run` does the given number of tasks, 3 times `count` in all, in runs that grow. It ends early for a system
 * that is too slow. Returns how many tasks to measure, which is a third of those that were done.
 */
const warmUp = async (
  count: number,
  { warmUpMillis }: Extent,
  first: number,
  run: (count: number) => Promise<unknown>
): Promise<number> => {
  const goal = WARM_UP * count
  const begun = performance.now()
  let done = 0
  let next = Math.min(first, goal)
  while (next > 0) {
    const start = performance.now()
    await run(next)
    done += next
    const now = performance.now()
    const left = warmUpMillis - (now - begun)
    const affordable = left < warmUpMillis / 10 ? 0 : Math.floor((next / (now - start)) * left)
    next = Math.min(2 * next, goal - done, affordable)
  }
  return Math.ceil(done / WARM_UP)
}

const enqueue = (
  metric: Omit<Metric, "unit">,
  run: (producer: Process, count: number) => Promise<number | undefined>
): Workload => ({
  metrics: [{ ...metric, unit: "tasks/s" }],
  producerOnly: true,
  measure: async ({ producer }, extent) => {
    const all = extent.size(20_000)
    const count = await warmUp(all, extent, Math.ceil(all / 32), (some) => run(producer, some))
    const millis = await run(producer, count)
    return { values: [perSecond(count, millis)], fewer: fewerThan(all, count) }
  }
})

const expectAll = async (worker: Process, ids: ReadonlyArray<string | number>) => {
  const found = await worker.call("check", ids)
  if (found !== ids.length) throw new Error(`${found} of ${ids.length} tasks have their result`)
}

const drain: Workload = {
  metrics: [{ name: "W2", what: "drain, concurrency 100", unit: "tasks/s" }],
  measure: async ({ producer, worker, analyze }, extent) => {
    const options = { concurrency: 100, sleepMillis: 0 }
    const fill = async (count: number) => {
      const ids = await producer.call("fill", count)
      await analyze()
      return ids
    }
    const all = extent.size(20_000)
    const count = await warmUp(all, extent, Math.ceil(all / 8), async (some) => {
      await fill(some)
      await worker.call("drain", some, options)
    })
    const ids = await fill(count)
    if (producer !== worker) await producer.close()
    const millis = await worker.call("drain", ids.length, options)
    await expectAll(worker, ids)
    return { values: [perSecond(ids.length, millis)], fewer: fewerThan(all, count) }
  }
}

/** Measures round trips, for as long as the warm-up may take at most, which is then enough of them for a p99. */
const roundTrips = async (
  { producer, worker }: Processes,
  { warmUpMillis }: Extent,
  count: number,
  callers: number
) => {
  await worker.call("startWorker", { concurrency: 100, sleepMillis: 0 })
  await producer.call("roundTrips", WARM_UP * count, callers, warmUpMillis)
  const answer = await producer.call("roundTrips", count, callers, warmUpMillis)
  if (answer === undefined) return undefined
  const latencies = ascending(answer.latencies)
  return {
    rate: perSecond(latencies.length, answer.millis),
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    fewer: fewerThan(count, latencies.length)
  }
}

const oneCaller: Workload = {
  metrics: [
    { name: "W3a", what: "round trip, one caller, p50", unit: "ms" },
    { name: "W3a-p99", what: "round trip, one caller, p99", unit: "ms" }
  ],
  measure: async (processes, extent) => {
    const found = await roundTrips(processes, extent, extent.size(1000), 1)
    return { values: [found?.p50, found?.p99], fewer: found?.fewer }
  }
}

const manyCallers: Workload = {
  metrics: [
    { name: "W3b", what: "round trips, 200 callers", unit: "tasks/s" },
    { name: "W3b-p99", what: "round trips, 200 callers, p99", unit: "ms" }
  ],
  measure: async (processes, extent) => {
    const found = await roundTrips(processes, extent, extent.size(20_000), 200)
    return { values: [found?.rate, found?.p99], fewer: found?.fewer }
  }
}

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const countRequests = ({ producer, worker }: Processes) =>
  Promise.all([...new Set([producer, worker])].map((process) => process.call("requests")))

/** Returns the requests per second that all processes make to the store, between two moments (milliseconds). */
const requestRate = async (processes: Processes, first: number, second: number) => {
  await sleep(first)
  const before = await countRequests(processes)
  await sleep(second - first)
  const after = await countRequests(processes)
  let rate = 0
  for (const [index, { count, at }] of after.entries()) {
    const start = before[index]
    if (start?.count === undefined || count === undefined) return undefined
    rate += ((count - start.count) / (at - start.at)) * 1000
  }
  return rate
}

const waiters: Workload = {
  metrics: [
    { name: "W4", what: "2,000 tasks that sleep 2 s, all awaited", unit: "s" },
    { name: "W4-load", what: "statements or commands while they sleep", unit: "requests/s" }
  ],
  counted: true,
  measure: async (processes, { size }) => {
    const count = size(2000)
    await processes.worker.call("startWorker", { concurrency: count, sleepMillis: 2000 })
    const [answer, rate] = await Promise.all([
      processes.producer.call("roundTrips", count, count, 60_000),
      requestRate(processes, 1000, 1900)
    ])
    return { values: answer === undefined ? [undefined, undefined] : [answer.millis / 1000, rate] }
  }
}

export const workloads: ReadonlyArray<Workload> = [
  enqueue({ name: "W1a", what: "enqueue, one after another" }, (producer, count) =>
    producer.call("oneByOne", count)
  ),
  enqueue({ name: "W1b", what: "enqueue, 64 in flight" }, (producer, count) =>
    producer.call("concurrently", count, 64)
  ),
  enqueue({ name: "W1c", what: "enqueue, the call for many, 1,000 at a time" }, (producer, count) =>
    producer.call("bulk", count, 1000)
  ),
  drain,
  oneCaller,
  manyCallers,
  waiters
]
