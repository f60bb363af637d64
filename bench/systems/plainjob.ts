import { DatabaseSync } from "node:sqlite"
import { type Connection, defineQueue, defineWorker } from "plainjob"
import { makeCounter, roundTrips } from "../calls.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const type = "work"
const done = 2

/**
 * plainjob takes a connection of better-sqlite3 or bun:sqlite. This is better-sqlite3's interface over node:sqlite, so
 * that all systems here use the same build of SQLite. It is as fast as better-sqlite3, within the noise.
 */
const connect = (filename: string): Connection => {
  const db = new DatabaseSync(filename)
  const begin = db.prepare("BEGIN")
  const beginImmediate = db.prepare("BEGIN IMMEDIATE")
  const commit = db.prepare("COMMIT")
  const rollback = db.prepare("ROLLBACK")
  type Run = (...args: Array<unknown>) => unknown
  const within =
    (start: typeof begin, run: Run): Run =>
    (...args) => {
      start.run()
      try {
        const result = run(...args)
        commit.run()
        return result
      } catch (error) {
        rollback.run()
        throw error
      }
    }
  return {
    driver: "better-sqlite3",
    filename,
    pragma: (text: string) => db.exec(`PRAGMA ${text}`),
    exec: (text: string) => db.exec(text),
    prepare: (text: string) => db.prepare(text),
    transaction: (run: Run) => Object.assign(within(begin, run), { immediate: within(beginImmediate, run) }),
    close: () => db.close()
  } as Connection
}

const quiet = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }

/** The poll interval of the producer: the best of 1 to 250 ms. */
const lookMillis = (callers: number) => (callers > 1000 ? 50 : callers > 1 ? 10 : 1)

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const open = async (filename: string): Promise<Session> => {
  const queue = defineQueue({ connection: connect(filename), logger: quiet })
  const add = (payload: Payload) => queue.add(type, payload).id
  const isDone = (id: number) => queue.getJobById(id)?.status === done

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const run = (job: { readonly data: string }) => {
      JSON.parse(job.data)
      return sleepMillis === 0 ? undefined : sleep(sleepMillis)
    }
    // A plainjob worker runs one job at a time, and all of its calls block. More workers in a process help only if a
    // job waits.
    const workers = Array.from({ length: sleepMillis === 0 ? 1 : concurrency }, () =>
      defineWorker(type, run, {
        queue,
        logger: quiet,
        pollIntervall: sleepMillis === 0 ? 1 : 100,
        onCompleted: () => counter.add(1)
      })
    )
    const running = workers.map((worker) => worker.start())
    return {
      finished: counter.reached,
      stop: async () => {
        await Promise.all(workers.map((worker) => worker.stop()))
        await Promise.all(running)
      }
    }
  }

  return {
    oneByOne: async (payloads) => payloads.forEach(add),
    concurrently: async (payloads) => payloads.map(add),
    bulk: async (chunks) => chunks.flatMap((payloads) => queue.addMany(type, [...payloads]).ids),
    work,
    roundTrips: async (options) => {
      const waiting = new Map<number, () => void>()
      const timer = setInterval(() => {
        for (const [id, resolve] of waiting) {
          if (!isDone(id)) continue
          waiting.delete(id)
          resolve()
        }
      }, lookMillis(options.callers))
      try {
        return await roundTrips(options, async (payload) => {
          const id = add(payload)
          await new Promise<void>((resolve) => waiting.set(id, resolve))
          return payload.value
        })
      } finally {
        clearInterval(timer)
      }
    },
    check: async (ids) => ids.filter((id) => isDone(Number(id))).length,
    close: async () => queue.close()
  }
}

export const plainjob: System = {
  note:
    "0.0.14 over node:sqlite in place of better-sqlite3 (same interface, same speed within the noise). It stores" +
    " no results: W2 marks jobs as done, W3 and W4 poll for that, every 1 ms for one caller, 10 ms for 200, 50 ms for" +
    " 2,000. It adds jobs one at a time, so W1b is W1a. Its worker runs one job after another: one worker, polling" +
    " each ms, for W2 and W3, 2,000 workers in the process," +
    " polling each 100 ms, for W4.",
  open
}
