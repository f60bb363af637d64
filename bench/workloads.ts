import type { Process, Processes } from "./processes.ts"

export interface Metric {
  readonly name: string
  readonly what: string
  readonly unit: "tasks/s" | "ms" | "s" | "requests/s"
}

/** The values in the order of the metrics; `undefined` if the system cannot do it. */
export type Values = ReadonlyArray<number | undefined>

export interface Workload {
  readonly metrics: ReadonlyArray<Metric>
  readonly counted?: boolean
  /** Takes long: runs only if it is named. */
  readonly chosenOnly?: boolean
  readonly measure: (processes: Processes, size: (count: number) => number) => Promise<Values>
}

const perSecond = (count: number, millis: number | undefined) =>
  millis === undefined ? undefined : (count / millis) * 1000

const percentile = (sorted: ReadonlyArray<number>, p: number): number | undefined =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]

const ascending = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)

/** A measurement comes after three times its work, so that it shows a process that has run for seconds. */
const warmUp = (count: number) => 3 * count

const enqueue = (
  metric: Omit<Metric, "unit">,
  run: (producer: Process, count: number) => Promise<number | undefined>
): Workload => ({
  metrics: [{ ...metric, unit: "tasks/s" }],
  measure: async ({ producer }, size) => {
    const count = size(20_000)
    await run(producer, warmUp(count))
    return [perSecond(count, await run(producer, count))]
  }
})

const expectAll = async (worker: Process, ids: ReadonlyArray<string | number>) => {
  const found = await worker.call("check", ids)
  if (found !== ids.length) throw new Error(`${found} of ${ids.length} tasks have their result`)
}

const drain: Workload = {
  metrics: [{ name: "W2", what: "drain, concurrency 100", unit: "tasks/s" }],
  measure: async ({ producer, worker, analyze }, size) => {
    const options = { concurrency: 100, sleepMillis: 0 }
    const first = await producer.call("fill", warmUp(size(20_000)))
    await analyze()
    await worker.call("drain", first.length, options)
    const ids = await producer.call("fill", size(20_000))
    await analyze()
    if (producer !== worker) await producer.close()
    const millis = await worker.call("drain", ids.length, options)
    await expectAll(worker, ids)
    return [perSecond(ids.length, millis)]
  }
}

const FINISHED = 1_000_000
const WAITING = 100_000

/** Drains 100,000 tasks from tables without finished tasks, and from tables with 1,000,000 of them. */
const crowd: Workload = {
  metrics: [
    { name: "W2-long", what: "drain of 100,000 tasks", unit: "tasks/s" },
    { name: "W2-full", what: "the same, beside 1,000,000 finished ones", unit: "tasks/s" }
  ],
  chosenOnly: true,
  measure: async ({ producer, worker, addFinished }, size) => {
    const options = { concurrency: 100, sleepMillis: 0 }
    const rate = async () => {
      const ids = await producer.call("fill", size(WAITING))
      return perSecond(ids.length, await worker.call("drain", ids.length, options))
    }
    await rate()
    const before = await rate()
    return (await addFinished(size(FINISHED))) ? [before, await rate()] : [before, undefined]
  }
}

const roundTrips = async (
  { producer, worker }: Processes,
  options: { readonly count: number; readonly callers: number; readonly maxMillis: number }
) => {
  const { count, callers, maxMillis } = options
  await worker.call("startWorker", { concurrency: 100, sleepMillis: 0 })
  await producer.call("roundTrips", count, callers, maxMillis / 2)
  const answer = await producer.call("roundTrips", count, callers, maxMillis)
  if (answer === undefined) return undefined
  const latencies = ascending(answer.latencies)
  return {
    rate: perSecond(latencies.length, answer.millis),
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99)
  }
}

const oneCaller: Workload = {
  metrics: [
    { name: "W3a", what: "round trip, one caller, p50", unit: "ms" },
    { name: "W3a-p99", what: "round trip, one caller, p99", unit: "ms" }
  ],
  measure: async (processes, size) => {
    const found = await roundTrips(processes, { count: size(2000), callers: 1, maxMillis: 10_000 })
    return [found?.p50, found?.p99]
  }
}

const manyCallers: Workload = {
  metrics: [
    { name: "W3b", what: "round trips, 200 callers", unit: "tasks/s" },
    { name: "W3b-p99", what: "round trips, 200 callers, p99", unit: "ms" }
  ],
  measure: async (processes, size) => {
    const found = await roundTrips(processes, { count: size(20_000), callers: 200, maxMillis: 20_000 })
    return [found?.rate, found?.p99]
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
  measure: async (processes, size) => {
    const count = size(2000)
    await processes.worker.call("startWorker", { concurrency: count, sleepMillis: 2000 })
    const [answer, rate] = await Promise.all([
      processes.producer.call("roundTrips", count, count, 60_000),
      requestRate(processes, 1000, 1900)
    ])
    if (answer === undefined) return [undefined, undefined]
    return [answer.millis / 1000, rate]
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
  crowd,
  oneCaller,
  manyCallers,
  waiters
]
