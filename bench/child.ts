/** A process of the bench: opens one system, and answers the calls of the parent. */
import { memory, serve } from "./serve.ts"
import { stores } from "./stores.ts"
import { payloads, type RunningWorker, type TaskId, type WorkOptions } from "./system.ts"

const [storeName, systemName, location, counting] = process.argv.slice(2) as [string, string, string, string]
const store = stores[storeName]
const load = store?.systems[systemName]
if (store === undefined || load === undefined) throw new Error(`no system ${systemName} for ${storeName}`)

const countRequests = counting === "count" && store.countRequests ? store.countRequests() : () => undefined
const session = await (await load()).open(location)
let worker: RunningWorker | undefined
let enqueued = 0

const take = (count: number) => {
  const taken = payloads(count, enqueued)
  enqueued += count
  return taken
}

const takeChunks = (count: number, size: number) => {
  const all = take(count)
  return Array.from({ length: Math.ceil(count / size) }, (_, index) =>
    all.slice(index * size, (index + 1) * size)
  )
}

const timed = async (run: () => Promise<unknown>) => {
  const start = performance.now()
  await run()
  return performance.now() - start
}

const startWorker = async (options: WorkOptions) => (worker = await session.work(options))

const stopWorker = async () => {
  await worker?.stop()
  worker = undefined
}

/** The calls that the parent can make. Times are in milliseconds, measured in this process. */
const calls = {
  oneByOne: (count: number) => {
    const work = take(count)
    return timed(() => session.oneByOne(work))
  },
  concurrently: (count: number, inFlight: number) => {
    const work = take(count)
    return timed(() => session.concurrently(work, inFlight))
  },
  bulk: async (count: number, size: number) => {
    const bulk = session.bulk
    if (bulk === undefined) return undefined
    const chunks = takeChunks(count, size)
    return timed(() => bulk(chunks))
  },
  /** Enqueues by the system's fastest call. */
  fill: (count: number): Promise<ReadonlyArray<TaskId>> =>
    session.bulk ? session.bulk(takeChunks(count, 1000)) : session.concurrently(take(count), 64),
  startWorker: async (options: WorkOptions) => void (await startWorker(options)),
  stopWorker,
  /** Returns the time from the start of the worker until `count` tasks are finished. */
  drain: async (count: number, options: WorkOptions) => {
    const millis = await timed(async () => (await startWorker(options)).finished(count))
    await stopWorker()
    return millis
  },
  roundTrips: async (count: number, callers: number, maxMillis: number) => {
    if (session.roundTrips === undefined) return undefined
    const work = take(count)
    const start = performance.now()
    const latencies = await session.roundTrips({ payloads: work, callers, maxMillis })
    return { millis: performance.now() - start, latencies }
  },
  check: (ids: ReadonlyArray<TaskId>) => session.check(ids),
  requests: async () => ({ count: countRequests(), at: performance.now() }),
  memory: async () => memory(),
  close: async () => {
    await stopWorker()
    await session.close()
  }
}

export type Calls = typeof calls

serve(calls)
