import { type Job, PgBoss } from "pg-boss"
import { forEach, makeCounter, roundTrips } from "../calls.ts"
import { parseLocation } from "../postgres.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

interface Result {
  readonly value: number
}

const queue = "work"
const batchSize = 100

/** The poll interval of a caller: the best of 1 to 500 ms for many callers. */
const lookMillis = (callers: number) => (callers > 1000 ? 250 : 100)

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const open = async (location: string): Promise<Session> => {
  const { url, schema } = parseLocation(location)
  const boss = new PgBoss({ connectionString: url, schema, useListenNotify: true })
  boss.on("error", (error) => console.error(error))
  await boss.start()
  await boss.createQueue(queue)

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const run = async (jobs: ReadonlyArray<Job<Payload>>) => {
      if (sleepMillis > 0) await sleep(sleepMillis)
      counter.add(jobs.length)
      return jobs.map(({ id, data }) => ({
        id,
        status: "completed" as const,
        output: { value: data.value } satisfies Result
      }))
    }
    const options = {
      batchSize,
      localConcurrency: Math.ceil(concurrency / batchSize),
      pollingIntervalSeconds: 0.5,
      burstWhenBatchFull: true,
      perJobResults: true
    } as const
    await boss.work<Payload>(queue, options, run)
    const stop = () => boss.offWork(queue)
    return {
      // The results of a batch are stored after its handler, and only the end of the worker shows when.
      finished: async (count) => {
        await counter.reached(count)
        await stop()
      },
      stop
    }
  }

  const add = async (payload: Payload) => {
    const id = await boss.send(queue, payload)
    if (id === null) throw new Error("pg-boss did not take the job")
    return id
  }
  const resultOf = async (id: string) => {
    const job = await boss.getJobById(queue, id)
    return job?.state === "completed" ? (job.output as Result) : undefined
  }

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) await add(payload)
    },
    concurrently: (payloads, inFlight) => forEach(payloads, inFlight, add),
    bulk: async (chunks) => {
      const ids: Array<string> = []
      for (const payloads of chunks) {
        const jobs = payloads.map((data) => ({ data }))
        ids.push(...((await boss.insert(queue, jobs, { returnId: true })) ?? []))
      }
      return ids
    },
    work,
    roundTrips: async (options) => {
      // Only to await results: every other enqueue would wait for the lock of NOTIFY.
      await boss.updateQueue(queue, { notify: true })
      return roundTrips(options, async (payload) => {
        const id = await add(payload)
        for (;;) {
          await sleep(lookMillis(options.callers))
          const result = await resultOf(id)
          if (result !== undefined) return result.value
        }
      })
    },
    check: async (ids) => {
      const { rows } = await boss.getDb().executeSql(
        `SELECT count(*)::int AS count FROM ${schema}.job
        WHERE name = $1 AND id = ANY ($2::uuid[]) AND state = 'completed' AND output ? 'value'`,
        [queue, ids]
      )
      return (rows[0] as { readonly count: number }).count
    },
    close: () => boss.stop({ graceful: false })
  }
}

export const pgBoss: System = {
  note:
    `12.38.0 over pg, the pool of 10 it has by default; batches of ${batchSize}, enough workers for the` +
    " concurrency, so one for W2, burstWhenBatchFull, polling each 0.5 s, and perJobResults, so each result stays with" +
    " its job. Four such workers, which have 400 jobs at a time, took W2 at 1.6 times the speed, two with batches of" +
    " 1,000 at twice the speed. W3, W4: queue option notify, which halves W1b, and the producer polls by getJobById," +
    " every 100 ms, and every 250 ms for 2,000 callers. A single caller that asks every 2 ms, 500 times a second, waits" +
    " for 4 ms.",
  open
}
