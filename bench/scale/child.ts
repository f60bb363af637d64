/** A process of the measurements of scale: opens a store with chicory, and answers the calls of the parent. */
import { Effect, Exit, Layer, Scope } from "effect"
import type { ClaimedMessage } from "../../src/BackendDriver.ts"
import { AsyncResult, Backend, Broker, Task, Worker } from "../../src/index.ts"
import { fusionOf } from "../../src/internal/driver/fusion.ts"
import { memory, serve } from "../serve.ts"
import { stores } from "../stores.ts"
import { payloads } from "../system.ts"
import { openRuntime, startWorker, Work } from "../systems/chicory.ts"

const HOUR = 3_600_000
const DAY = 24 * HOUR
const CHUNK = 1000
/** A measurement of calls ends after as many milliseconds. */
const MAX_MILLIS = 3000

/** The task of the worker that has nothing to do. */
const Idle = Task.make("bench.idle", { queue: "idle" })

const [storeName = "", location = ""] = process.argv.slice(2)
const countRequests: () => number | undefined = stores[storeName]?.countRequests?.() ?? (() => undefined)
const runtime = await openRuntime(storeName, location)
let running: Awaited<ReturnType<typeof startWorker>> | undefined
const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Returns the milliseconds of each call. */
const timeEach = async (count: number, call: (index: number) => Promise<unknown>) => {
  const times: Array<number> = []
  const begun = performance.now()
  for (let index = 0; index < count && performance.now() - begun < MAX_MILLIS; index++) {
    const start = performance.now()
    await call(index)
    times.push(performance.now() - start)
  }
  return times
}

const succeeded = async () => (running ? (await runtime.runPromise(running.worker.stats)).succeeded : 0)

const start = async (concurrency: number) => {
  running = await startWorker(runtime, { concurrency, sleepMillis: 0 })
}

const stop = async () => {
  await running?.stop()
  running = undefined
}

const services = Effect.all({ backend: Backend.Backend, broker: Broker.Broker })
const tasks = [Work.name]
const startDefaults = [
  {
    task: Work.name,
    leaseMillis: HOUR,
    maxCrashes: 3,
    retentionMillis: DAY,
    deadLetterRetentionMillis: DAY
  }
]
let lastClaim = 0

/** Claims messages and starts their tasks. Returns `undefined` where a claim is not one call of a store. */
const claim = Effect.fnUntraced(function* (max: number) {
  const claimOfStore = fusionOf(yield* services)?.claim
  if (claimOfStore === undefined) return undefined
  const claimId = `bench-${process.pid}-${++lastClaim}`
  return yield* claimOfStore({
    queues: [Work.queue],
    max,
    leaseMillis: HOUR,
    worker: "bench",
    claimId,
    tasks,
    startDefaults
  })
})

/** Stores a result for each claimed task. */
const settle = Effect.fnUntraced(function* (claimed: ReadonlyArray<ClaimedMessage>) {
  const fusion = fusionOf(yield* services)
  const exit = JSON.stringify({ _tag: "Success", value: { value: 1 } })
  const settlements = claimed.flatMap(({ delivery: { handle, id }, run }) =>
    id === undefined || run?.started._tag !== "Run"
      ? []
      : [
          {
            settlement: {
              id,
              token: run.token,
              outcome: { _tag: "Success", exit, retentionMillis: DAY } as const
            },
            handle
          }
        ]
  )
  const settled = (yield* fusion?.settle.many(settlements) ?? Effect.succeed([])).filter(Exit.isSuccess)
  if (settled.length < claimed.length) {
    return yield* Effect.die(new Error(`${settled.length} of ${claimed.length} claimed tasks were settled`))
  }
})

/** The calls that the parent can make. Times are in milliseconds, measured in this process. */
const calls = {
  /** Enqueues by the call for many. Returns the id of one task of each 1,000. */
  fill: async (count: number) => {
    const ids: Array<string> = []
    for (let from = 0; from < count; from += CHUNK) {
      const some = payloads(Math.min(CHUNK, count - from), from)
      const [first] = await runtime.runPromise(Work.delayAll(some))
      if (first) ids.push(first.taskId)
    }
    return ids
  },
  /** Enqueues one task in each of as many queues. */
  fillQueues: (count: number) =>
    runtime.runPromise(
      Effect.forEach(payloads(count), (payload, n) => Work.delay(payload, { queue: `queue-${n}` }), {
        concurrency: 256,
        discard: true
      })
    ),
  startWorker: (concurrency: number) => start(concurrency),
  stopWorker: () => stop(),
  succeeded,
  /** Returns the time from the start of a worker until it has run `count` tasks. It may run some more. */
  drain: async (count: number, concurrency: number) => {
    const begun = performance.now()
    await start(concurrency)
    while ((await succeeded()) < count) await sleep(1)
    const millis = performance.now() - begun
    await stop()
    return millis
  },
  /** Claims, and settles what it claimed. */
  claim: async (count: number, max: number) => {
    const first = await runtime.runPromise(claim(max))
    if (first === undefined) return undefined
    const claims = [first]
    const times = await timeEach(count, async () => {
      claims.push((await runtime.runPromise(claim(max))) ?? [])
    })
    for (const claimed of claims) await runtime.runPromise(settle(claimed))
    return times
  },
  /** Claims `count` messages and holds them. */
  hold: async (count: number) => {
    let held = 0
    while (held < count) {
      const claimed = await runtime.runPromise(claim(Math.min(256, count - held)))
      if (claimed === undefined || claimed.length === 0) throw new Error(`${held} of ${count} were claimed`)
      held += claimed.length
    }
  },
  enqueue: (count: number) => {
    const work = payloads(count)
    return timeEach(count, (index) => runtime.runPromise(Work.delay(work[index]!)))
  },
  counts: (count: number) => timeEach(count, () => runtime.runPromise(Broker.counts([Work.queue]))),
  read: (ids: ReadonlyArray<string>) =>
    timeEach(ids.length, (index) => runtime.runPromise(AsyncResult.poll(Work.result(ids[index]!)))),
  /** Runs a worker of another queue, without tasks. Returns its requests and its milliseconds of CPU time a second. */
  idle: async (millis: number) => {
    const layer = Worker.layer([Idle], { concurrency: 100 }).pipe(
      Layer.provide(Idle.toLayer(() => Effect.void))
    )
    const scope = Scope.makeUnsafe()
    await runtime.runPromise(Layer.buildWithScope(layer, scope))
    await sleep(millis / 2)
    const [requests, begun, cpu] = [countRequests(), performance.now(), process.cpuUsage()]
    await sleep(millis)
    const used = process.cpuUsage(cpu)
    const seconds = (performance.now() - begun) / 1000
    const made = countRequests()
    await runtime.runPromise(Scope.close(scope, Exit.void))
    return {
      requests: requests === undefined || made === undefined ? undefined : (made - requests) / seconds,
      cpuMillis: (used.user + used.system) / 1000 / seconds
    }
  },
  /** Registers workers, as their heartbeats do. */
  heartbeats: (count: number) =>
    runtime.runPromise(
      Effect.flatMap(Backend.Backend, ({ heartbeat }) =>
        Effect.forEach(
          Array.from({ length: count }, (_, n) => n),
          (n) =>
            heartbeat(
              {
                id: `worker-${n}`,
                hostname: "bench",
                pid: n,
                queues: [Work.queue],
                tasks,
                concurrency: 100,
                running: 0
              },
              HOUR
            ),
          { concurrency: 64, discard: true }
        )
      )
    ),
  /** Awaits the results of tasks that are due in an hour. Returns when all wait. */
  wait: async (count: number) => {
    const handles = await runtime.runPromise(Work.delayAll(payloads(count), { delay: "1 hour" }))
    runtime.runFork(
      Effect.forEach(handles, (handle) => AsyncResult.get(handle), {
        concurrency: "unbounded",
        discard: true
      })
    )
    // the first reads are over when the process makes only the requests of one that waits
    for (let before = -Infinity, now = 0; now - before > 5;) {
      await sleep(500)
      before = now
      now = countRequests() ?? before
    }
  },
  memory: async () => memory(),
  close: async () => {
    await stop()
    await runtime.dispose()
  }
}

export type ScaleCalls = typeof calls

serve(calls)
