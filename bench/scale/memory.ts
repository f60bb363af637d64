/** Measures the memory of workers and of waiters, and the bytes of tasks in the store. */
import { ordinaryHeap, type Processes, withProcesses } from "../processes.ts"
import type { Cell } from "../results.ts"
import type { Place } from "../stores.ts"
import { number } from "../table.ts"
import { type Part, type Run, thousands } from "./scale.ts"

const WAITERS = 2000
const TASKS = 50_000
const MIB = 2 ** 20

const metrics = [
  { name: "worker", what: "idle worker, resident memory of its process", unit: "MiB" },
  { name: "worker-live", what: "idle worker, live heap and buffers", unit: "MiB" },
  { name: "waiter", what: "a waiter, live heap and buffers", unit: "bytes" },
  { name: "waiting", what: "a waiting task in the store", unit: "bytes" },
  { name: "finished", what: "a finished task in the store", unit: "bytes" }
] as const

type Name = (typeof metrics)[number]["name"]
type Found = Partial<Readonly<Record<Name, number | undefined>>>

const work = { concurrency: 100, sleepMillis: 0 }
const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Returns the live bytes of a process when they no longer grow. */
const settledMemory = async (process: Processes["producer"]) => {
  let { live } = await process.call("memory")
  for (;;) {
    await sleep(500)
    const now = await process.call("memory")
    if (now.live < live * 1.01) return now.live
    live = now.live
  }
}

/** Returns the bytes of one of many callers that await results which never come, as no worker runs. */
const measureWaiter = async ({ producer, worker }: Processes, count: number) => {
  await worker.call("startWorker", work)
  const first = await producer.call("roundTrips", 500, 50, 5000)
  await worker.call("stopWorker")
  if (first === undefined) return undefined
  const before = await settledMemory(producer)
  const waiting = producer.call("roundTrips", count, count, 1e9)
  waiting.catch(() => {}) // it ends with the process
  await sleep(1000)
  const bytes = (await settledMemory(producer)) - before
  await producer.kill()
  return bytes / count
}

const measureWorker = async ({ producer, worker }: Processes, count: number): Promise<Found> => {
  await worker.call("drain", (await producer.call("fill", count)).length, work)
  await worker.call("startWorker", work)
  await sleep(1000)
  const { live, rss } = await worker.call("memory")
  return { worker: rss / MIB, "worker-live": live / MIB }
}

const measureStore = async (
  { producer, worker }: Processes,
  { bytes }: Place,
  count: number
): Promise<Found> => {
  if (bytes === undefined) return {}
  const empty = await bytes()
  const ids = await producer.call("fill", count)
  const full = await bytes()
  await worker.call("drain", ids.length, work)
  return { waiting: (full - empty) / count, finished: ((await bytes()) - empty) / count }
}

const measure = async ({ size, store, storeName }: Run, system: string): Promise<Found> => {
  const subject = { storeName, store, system, heap: ordinaryHeap }
  const inStore = await withProcesses(subject, (processes, place) =>
    measureStore(processes, place, size(TASKS))
  )
  const ofWorker = await withProcesses(subject, (processes) => measureWorker(processes, size(5000)))
  const waiter = await withProcesses(subject, (processes) => measureWaiter(processes, size(WAITERS)))
  return { ...inStore, ...ofWorker, waiter }
}

/** The memory of all systems. */
export const memory: Part = async (run) => {
  const { attempt, size, systems } = run
  const rows = metrics.map((metric) => ({ ...metric, cells: {} as Record<string, Cell> }))
  for (const system of systems) {
    const found = await attempt(`memory ${system}:`, () => measure(run, system))
    if (found === undefined) continue
    const shown = rows.map(({ cells, name, unit }) => {
      const value = found[name]
      if (value === undefined) return `${name} -`
      cells[system] = { values: [value] }
      return `${name} ${number(value)} ${unit}`
    })
    console.error(`memory ${system}:`, shown.join(", "))
  }
  return {
    name: "memory",
    title: `Memory on ${run.storeName}; x: ${systems[0]} / it.`,
    columns: systems,
    compared: "first / it",
    rows,
    notes: [
      `Processes with V8's own sizes of the heap, after a garbage collection. A waiter is one of ${thousands(size(WAITERS))}` +
        " callers in a process, with all that its call takes there.",
      `Bytes of tasks are those of ${thousands(size(TASKS))} in the store, indexes included, and for finished ones also what` +
        " lies free in tables after a VACUUM. A system that removes finished tasks has only that."
    ]
  }
}
