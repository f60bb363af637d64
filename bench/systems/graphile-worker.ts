import { Logger, makeWorkerUtils, run } from "graphile-worker"
import { forEach, makeCounter } from "../calls.ts"
import { parseLocation } from "../postgres.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const identifier = "work"
const localQueueSize = 500
const quiet = new Logger(() => () => {})

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

const open = async (location: string): Promise<Session> => {
  const { url, schema } = parseLocation(location)
  const shared = { connectionString: url, schema, logger: quiet }
  const utils = await makeWorkerUtils({ preset: { worker: shared } })
  await utils.migrate()

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const runner = await run({
      preset: {
        worker: {
          ...shared,
          concurrentJobs: concurrency,
          localQueue: { size: localQueueSize },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0
        }
      },
      noHandleSignals: true,
      parsedCronItems: [],
      taskList: {
        [identifier]: async () => {
          if (sleepMillis > 0) await sleep(sleepMillis)
        }
      }
    })
    runner.events.on("job:complete", () => counter.add(1))
    let stopped: Promise<void> | undefined
    const stop = () => (stopped ??= runner.stop())
    return {
      // Completed jobs are removed in batches, and only the end of the worker shows when.
      finished: async (count) => {
        await counter.reached(count)
        await stop()
      },
      stop
    }
  }

  const add = async (payload: Payload) => (await utils.addJob(identifier, payload)).id

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) await add(payload)
    },
    concurrently: (payloads, inFlight) => forEach(payloads, inFlight, add),
    bulk: async (chunks) => {
      const ids: Array<string> = []
      for (const payloads of chunks) {
        const jobs = await utils.addJobs(payloads.map((payload) => ({ identifier, payload })))
        ids.push(...jobs.map(({ id }) => id))
      }
      return ids
    },
    work,
    check: async (ids) => {
      const { rows } = await utils.withPgClient((client) =>
        client.query<{ readonly id: string }>(`SELECT id FROM ${schema}.jobs WHERE id = ANY($1)`, [ids])
      )
      return ids.length - rows.length
    },
    close: async () => utils.release()
  }
}

export const graphileWorker: System = {
  note:
    `0.18.0 over pg, the pool of 10 it has by default; localQueue.size ${localQueueSize}, completeJobBatchDelay and` +
    " failJobBatchDelay 0, as its documentation has it for the highest throughput, and no log. With a queue of 1,000" +
    " W2 was some 15 % faster, with one of 101 some 20 % slower. It stores no results: W2 takes jobs and removes them.",
  open
}
