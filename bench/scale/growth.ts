/** Measures how the costs of a store grow with what lies in it: waiting tasks, finished ones, workers, queues, claims. */
import { freemem } from "node:os"
import { withPlace } from "../processes.ts"
import { type Cell, median } from "../results.ts"
import type { Place } from "../stores.ts"
import { number } from "../table.ts"
import type { ScaleCalls } from "./child.ts"
import { child, fill, type Part, type Run, type ScaleProcess, thousands } from "./scale.ts"

/** The most that a store holds in reasonable time, and in reasonable memory. */
interface Limits {
  readonly waiting: number
  readonly finished: number
  readonly workers: number
  readonly queues: number
  readonly claims: number
  readonly waiters: number
  /** Whether the store keeps everything in memory. */
  readonly inMemory?: boolean
}

const usual: Limits = {
  waiting: 5_000_000,
  finished: 1_000_000,
  workers: 1000,
  queues: 10_000,
  claims: 100_000,
  waiters: 20_000
}

const limits: Readonly<Record<string, Limits>> = {
  memory: { ...usual, waiting: 1_000_000, workers: 0, waiters: 0, inMemory: true },
  sqlite: usual,
  redis: { ...usual, inMemory: true },
  postgres: usual,
  // it enqueues and runs at a fifth of the speed of the others
  mariadb: { ...usual, waiting: 1_000_000, finished: 200_000 },
  // each queue is several of the server's, and claims are pushed
  rabbitmq: { ...usual, waiting: 1_000_000, finished: 200_000, queues: 0, claims: 0, inMemory: true }
}

/** Bytes of memory for a task, with room for a copy that the server makes when it saves. */
const BYTES_OF_TASK = 2500

const metrics = [
  { name: "drain", what: "drain, concurrency 100, a task", unit: "µs" },
  { name: "claim", what: "a claim of 100", unit: "ms" },
  { name: "enqueue", what: "an enqueue, one after another", unit: "ms" },
  { name: "counts", what: "the counts of the queue", unit: "ms" },
  { name: "read", what: "a read of one task", unit: "ms" },
  { name: "idle", what: "idle worker of an empty queue, requests", unit: "1/s" },
  { name: "idle-cpu", what: "idle worker of an empty queue, CPU time", unit: "ms/s" }
] as const

type Found = Readonly<Record<(typeof metrics)[number]["name"], number | undefined>>

/** What lies in the store while it is measured. */
interface Setting {
  readonly name: string
  readonly waiting: number
  /** Puts the rest into the store. `another` starts another process, which stays until the measurement ends. */
  readonly prepare?: (process: ScaleProcess, another: () => Promise<ScaleProcess>) => Promise<void>
}

const FINISH_AT_ONCE = 50_000

const finish = async (process: ScaleProcess, count: number) => {
  for (let left = count; left > 0; left -= FINISH_AT_ONCE) {
    const some = Math.min(left, FINISH_AT_ONCE)
    await fill(process, some)
    await process.call("drain", some, 512)
  }
}

const settingsOf = (most: Limits, size: Run["size"]): ReadonlyArray<Setting> => {
  const few = size(1000)
  const waiting = [1000, 100_000, 1_000_000, 5_000_000]
    .filter((count) => count <= most.waiting)
    .map((count): Setting => ({ name: `${thousands(size(count))} waiting`, waiting: size(count) }))
  const beside = (count: number, what: string, prepare: NonNullable<Setting["prepare"]>) =>
    count === 0 ? [] : [{ name: `${thousands(count)} ${what}`, waiting: few, prepare }]
  const scaled = (count: number) => (count === 0 ? 0 : size(count))
  const [finished, workers, queues] = [scaled(most.finished), scaled(most.workers), scaled(most.queues)]
  const [claims, waiters] = [scaled(most.claims), scaled(most.waiters)]
  return [
    ...waiting,
    ...beside(finished, "finished", (process) => finish(process, finished)),
    ...beside(workers, "workers", (process) => process.call("heartbeats", workers)),
    ...beside(queues, "queues", (process) => process.call("fillQueues", queues)),
    ...beside(claims, "claims", async (process) => {
      await fill(process, claims)
      await process.call("hold", claims)
    }),
    ...beside(waiters, "waiters", async (_, another) => (await another()).call("wait", waiters))
  ]
}

const CLAIMS = 50
const CLAIMED = 100

const measure = async (
  { size }: Run,
  setting: Setting,
  place: Place,
  process: ScaleProcess,
  another: () => Promise<ScaleProcess>
): Promise<Found> => {
  const drained = size(20_000)
  const claims = Math.min(CLAIMS, size(CLAIMS) + 2)
  await fill(process, drained)
  await process.call("drain", drained, 100)
  await setting.prepare?.(process, another)
  const ids = await fill(process, setting.waiting)
  await fill(process, drained + (claims + 1) * CLAIMED)
  await place.analyze?.()

  const claimTimes = await process.call("claim", claims, CLAIMED)
  const drainMillis = await process.call("drain", drained, 100)
  const countTimes = await process.call("counts", 20)
  const readTimes = await process.call(
    "read",
    Array.from({ length: 500 }, (_, n) => ids[n % ids.length] ?? "")
  )
  const idle = await process.call("idle", 3000)
  const enqueueTimes = await process.call("enqueue", size(500))
  return {
    drain: (drainMillis / drained) * 1000,
    claim: claimTimes && median(claimTimes),
    enqueue: median(enqueueTimes),
    counts: median(countTimes),
    read: median(readTimes),
    idle: idle.requests,
    "idle-cpu": idle.cpuMillis
  }
}

/** Whether the machine has the memory for a setting. */
const fits = ({ inMemory }: Limits, { waiting }: Setting) =>
  inMemory !== true || waiting * BYTES_OF_TASK < freemem()

/** The growth of a store's costs. */
export const growth: Part = async (run) => {
  const { attempt, size, store, storeName } = run
  const most = limits[storeName] ?? usual
  const rows = metrics.map((metric) => ({ ...metric, cells: {} as Record<string, Cell> }))
  const settings = settingsOf(most, size)
  const columns: Array<string> = []
  const notes = [
    `The most for ${storeName}: ${thousands(most.waiting)} waiting tasks, ${thousands(most.finished)} finished ones.`,
    "A setting is a new location with one process that is warmed up. The last columns have as many waiting tasks as" +
      " the first. A drain ends with the waiting tasks left; claims take tasks that are beyond them."
  ]
  for (const setting of settings) {
    const title = `growth, ${setting.name}:`
    if (!fits(most, setting)) {
      notes.push(
        `${setting.name}: left out, as the machine has ${number(freemem() / 2 ** 30)} GiB of free memory.`
      )
      continue
    }
    const found = await attempt(title, () =>
      withPlace(store, async (place, startProcess) => {
        const another = () => startProcess<ScaleCalls>(child, [storeName, place.location])
        return measure(run, setting, place, await another(), another)
      })
    )
    if (found === undefined) continue
    columns.push(setting.name)
    const shown = rows.map(({ cells, name, unit }) => {
      const value = found[name]
      if (value === undefined) return `${name} -`
      cells[setting.name] = { values: [value] }
      return `${name} ${number(value)} ${unit}`
    })
    console.error(title, shown.join(", "))
  }
  return {
    name: "growth",
    title: `Growth of chicory's costs on ${storeName}; x: a value by that of the first column.`,
    columns,
    compared: "it / first",
    rows,
    notes
  }
}
