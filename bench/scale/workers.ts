/** Measures how fast 1, 2, 4 and 10 worker processes drain a queue. */
import { cpus } from "node:os"
import { withPlace } from "../processes.ts"
import type { Cell } from "../results.ts"
import type { Place } from "../stores.ts"
import { number } from "../table.ts"
import type { ScaleCalls } from "./child.ts"
import { child, fill, type Part, type ScaleProcess, thousands } from "./scale.ts"

const COUNTS = [1, 2, 4, 10]
const TASKS = 100_000
const LOOK_MILLIS = 10

const metrics = [
  { name: "workers", what: "drain, concurrency 100 each", unit: "tasks/s" },
  { name: "workers-cpu", what: "of all processors in use", unit: "%" }
] as const

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Returns the processor time of the machine so far, used and in all. */
const processorTime = () => {
  let used = 0
  let all = 0
  for (const { times } of cpus()) {
    const total = Object.values(times).reduce((sum, time) => sum + time, 0)
    used += total - times.idle
    all += total
  }
  return { used, all }
}

/** Starts a worker in each process and waits until together they have run `count` tasks. */
const drain = async (workers: ReadonlyArray<ScaleProcess>, count: number) => {
  const before = processorTime()
  const begun = performance.now()
  await Promise.all(workers.map((worker) => worker.call("startWorker", 100)))
  const succeeded = async () => {
    const counts = await Promise.all(workers.map((worker) => worker.call("succeeded")))
    return counts.reduce((sum, one) => sum + one, 0)
  }
  while ((await succeeded()) < count) await sleep(LOOK_MILLIS)
  const millis = performance.now() - begun
  const after = processorTime()
  await Promise.all(workers.map((worker) => worker.call("stopWorker")))
  return {
    workers: (count / millis) * 1000,
    "workers-cpu": ((after.used - before.used) / (after.all - before.all)) * 100
  }
}

const measure = async (
  place: Place,
  producer: ScaleProcess,
  workers: ReadonlyArray<ScaleProcess>,
  size: (count: number) => number
) => {
  const fillAndDrain = async (count: number) => {
    await fill(producer, count)
    await place.analyze?.()
    return drain(workers, count)
  }
  await fillAndDrain(workers.length * size(20_000))
  return fillAndDrain(size(TASKS))
}

/** The curve of several workers. */
export const workers: Part = async ({ attempt, size, store, storeName }) => {
  const rows = metrics.map((metric) => ({ ...metric, cells: {} as Record<string, Cell> }))
  const columns: Array<string> = []
  for (const count of store.processes === 1 ? [] : COUNTS) {
    const column = count === 1 ? "1 worker" : `${count} workers`
    const found = await attempt(`${column}:`, () =>
      withPlace(store, async (place, startProcess) => {
        const start = () => startProcess<ScaleCalls>(child, [storeName, place.location])
        const producer = await start()
        const processes: Array<ScaleProcess> = []
        while (processes.length < count) processes.push(await start())
        return measure(place, producer, processes, size)
      })
    )
    if (found === undefined) continue
    columns.push(column)
    const shown = rows.map(({ cells, name, unit }) => {
      cells[column] = { values: [found[name]] }
      return `${number(found[name])} ${unit}`
    })
    console.error(`${column}:`, shown.join(", "))
  }
  return {
    name: "workers",
    title: `Workers of chicory on ${storeName}, each in a process of its own; x: a value by that of one worker.`,
    columns,
    compared: "it / first",
    rows,
    notes: [
      `${thousands(size(TASKS))} waiting tasks, with the producer idle. The processors are those of the whole machine, the` +
        " server included."
    ]
  }
}
