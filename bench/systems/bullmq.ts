import { Job, Queue, QueueEvents, Worker } from "bullmq"
import { Redis } from "ioredis"
import { forEach, makeCounter, roundTrips } from "../calls.ts"
import { parseLocation } from "../redis.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

interface Result {
  readonly value: number
}

const name = "work"
const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const open = async (location: string): Promise<Session> => {
  const { url, prefix } = parseLocation(location)
  const opened: Array<Redis> = []
  const options = () => {
    const connection = new Redis(url, { maxRetriesPerRequest: null })
    opened.push(connection)
    return { connection, prefix, skipVersionCheck: true }
  }
  const queue = new Queue<Payload, Result>(name, options())
  queue.setMaxListeners(0)
  await queue.waitUntilReady()

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const run = async ({ data }: Job<Payload, Result>) => {
      if (sleepMillis > 0) await sleep(sleepMillis)
      return { value: data.value }
    }
    const worker = new Worker<Payload, Result>(name, run, { ...options(), concurrency })
    worker.on("completed", () => counter.add(1))
    worker.on("error", (error) => console.error(error))
    return {
      finished: counter.reached,
      stop: () => worker.close()
    }
  }

  let events: QueueEvents<Result> | undefined
  /**
   * Opened only to await results, as it reads every event of the queue. It reads from the queue's first event: by
   * default it starts at its first read, which `waitUntilReady` does not wait for, and a caller that misses the event
   * of its result waits for ever.
   */
  const listen = async () => {
    if (events === undefined) {
      events = new QueueEvents<Result>(name, { ...options(), lastEventId: "0-0" })
      events.setMaxListeners(0)
      await events.waitUntilReady()
    }
    return events
  }
  const jobIds = (jobs: ReadonlyArray<Job>) => jobs.map(({ id }) => id ?? "")

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) await queue.add(name, payload)
    },
    concurrently: async (payloads, inFlight) =>
      jobIds(await forEach(payloads, inFlight, (payload) => queue.add(name, payload))),
    bulk: async (chunks) => {
      const ids: Array<string> = []
      for (const payloads of chunks) {
        ids.push(...jobIds(await queue.addBulk(payloads.map((data) => ({ name, data })))))
      }
      return ids
    },
    work,
    roundTrips: async (options) => {
      const listening = await listen()
      return roundTrips(options, async (payload) => {
        const job = await queue.add(name, payload)
        return (await job.waitUntilFinished(listening)).value
      })
    },
    check: async (ids) => {
      const jobs = await forEach(ids, 100, (id) => Job.fromId<Payload, Result>(queue, String(id)))
      return jobs.filter((job) => typeof job?.returnvalue?.value === "number").length
    },
    close: async () => {
      await events?.close()
      await queue.close()
      for (const connection of opened) connection.disconnect()
    }
  }
}

export const bullmq: System = {
  note:
    "6.7.0 over ioredis 6.0.0, a connection each for queue, worker and QueueEvents; one worker, default" +
    " settings, so each result stays with its job; W3 and W4 await by job.waitUntilFinished over QueueEvents. Without" +
    " enableAutoPipelining: with it W1b and W2 were some 40 % lower, and W3a took twice as long. node-redis instead of" +
    " ioredis, 2 or 4 workers, a longer event stream, removeOnComplete with a count, no renewal of locks and no check" +
    " for stalled jobs gained nothing beyond the noise.",
  open
}
