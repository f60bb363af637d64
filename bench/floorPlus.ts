/**
 * What the systems named `floor+` have in common: batches of concurrent callers, the loop of a worker, and waiters.
 * They are written by hand over the bare driver, and keep the promises that a task queue with results makes. What
 * differs is the store, in `systems/<store>-floor-plus.ts`.
 */
import { forEach, makeCounter, roundTrips } from "./calls.ts"
import type { Payload, RunningWorker, Session, WorkOptions } from "./system.ts"

/** Tasks of one call to the store, at most. */
const maxBatch = 256
/** Milliseconds for which a claim holds its tasks, unless it is renewed. */
const leaseMillis = 30_000
/** Calls on their way that enqueue, at most. */
const maxCalls = 4
/** Batches from this size on are split, in stores that split them. */
const splitFrom = 32
/** Batches of results on their way while the next tasks are claimed, at most. */
const maxSettling = 2
/** An idle worker claims this often, since a wake may be lost and a lease may end. */
const lookMillis = 1000
/** Awaited results are read this often, since a push may be lost. */
const sweepMillis = 5000

export interface NewTask {
  readonly id: string
  readonly body: string
}

/** A task that a worker may run. */
export interface ClaimedTask extends NewTask {
  /** The name of the claim. Only as long as the record bears it may the result be stored. */
  readonly token: string
  /** The channel on which the process of a waiter hears of the end. */
  readonly replyTo: string | null
}

export interface Settlement<Task> {
  readonly task: Task
  readonly result: string
}

export type Result = readonly [id: string, result: string]

/** A store of records and messages. Batches have at most 256 items. */
export interface FloorPlusStore<Task extends ClaimedTask = ClaimedTask> {
  /** Whether a batch is split in two while no other is on its way, so that callers go on while the store works. */
  readonly splitsBatches: boolean
  /** Writes a record and a message for each task. Passes over ids that exist. */
  readonly enqueue: (tasks: ReadonlyArray<NewTask>) => Promise<void>
  /** Claims tasks for the time of a lease, and starts them. Those whose lease is over are claimed again. */
  readonly claim: (max: number, leaseMillis: number) => Promise<ReadonlyArray<Task>>
  /** In one step, stores the results of tasks that still bear the token, and removes their messages. Returns how many. */
  readonly settle: (settlements: ReadonlyArray<Settlement<Task>>) => Promise<number>
  /** Holds claims for another lease from now. */
  readonly renew: (tokens: ReadonlyArray<string>, leaseMillis: number) => Promise<void>
  /** Reads the results of those tasks that have one. */
  readonly read: (ids: ReadonlyArray<string>) => Promise<ReadonlyArray<Result>>
  /** Calls `wake` when there may be messages, until the returned function is called. */
  readonly onMessages: (wake: () => void, concurrency: number) => Promise<() => Promise<void>>
  /** From now on, results of tasks that this process enqueues are received. `awaited` returns their ids. */
  readonly onResults: (
    receive: (results: ReadonlyArray<Result>) => void,
    awaited: () => ReadonlyArray<string>
  ) => Promise<void>
  readonly close: () => Promise<void>
}

let lastId = 0
const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0")
/** Returns ids in ascending order, as time-ordered UUIDs are. */
const makeId = () => `${hex(Date.now(), 12)}-${hex(++lastId, 10)}-${hex(process.pid, 12)}`
const newTask = (payload: Payload): NewTask => ({ id: makeId(), body: JSON.stringify(payload) })

const slices = <A>(items: ReadonlyArray<A>) =>
  Array.from({ length: Math.ceil(items.length / maxBatch) }, (_, index) =>
    items.slice(index * maxBatch, (index + 1) * maxBatch)
  )

interface Waiting<A> {
  readonly item: A
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** Sends the items of one turn of the event loop together. Those that come while all calls are on their way wait. */
const makeBatches = <A>(send: (items: ReadonlyArray<A>) => Promise<void>, splits: boolean) => {
  const waiting: Array<Waiting<A>> = []
  let calls = 0
  let scheduled = false
  const sendBatch = async (batch: ReadonlyArray<Waiting<A>>) => {
    calls++
    try {
      await send(batch.map(({ item }) => item))
      for (const { resolve } of batch) resolve()
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
    calls--
    schedule()
  }
  const sendWaiting = () => {
    scheduled = false
    if (splits && calls === 0 && waiting.length >= splitFrom) {
      void sendBatch(waiting.splice(0, Math.min(maxBatch, waiting.length >> 1)))
    }
    while (calls < maxCalls && waiting.length > 0) void sendBatch(waiting.splice(0, maxBatch))
  }
  const schedule = () => {
    if (scheduled || waiting.length === 0) return
    scheduled = true
    setImmediate(sendWaiting)
  }
  return (item: A) =>
    new Promise<void>((resolve, reject) => {
      waiting.push({ item, resolve, reject })
      if (calls < maxCalls) schedule()
    })
}

/** `rest` waits until `wake` is called, at most the given milliseconds; not at all if it was called since the last rest. */
const makeAlarm = () => {
  let woken = false
  let end = () => {}
  return {
    wake: () => {
      woken = true
      end()
    },
    rest: async (millis: number) => {
      if (!woken) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, millis)
          end = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
      woken = false
    }
  }
}

const startWorker = async <Task extends ClaimedTask>(
  store: FloorPlusStore<Task>,
  { concurrency, sleepMillis }: WorkOptions
): Promise<RunningWorker> => {
  const counter = makeCounter()
  const alarm = makeAlarm()
  /** The number of tasks of each claim that have not ended, by token. */
  const held = new Map<string, number>()
  const settling = new Set<Promise<void>>()
  let done: Array<Settlement<Task>> = []
  let running = 0
  let stopped = false
  /** Whether the loop waits for free slots, and not for messages. */
  let isFull = false
  const onFreed = () => {
    if (isFull || stopped) alarm.wake()
  }

  const settle = async (settlements: ReadonlyArray<Settlement<Task>>) => {
    counter.add(await store.settle(settlements))
    for (const { task } of settlements) {
      const left = (held.get(task.token) ?? 0) - 1
      if (left > 0) held.set(task.token, left)
      else held.delete(task.token)
    }
  }
  /** Settles what ended in one turn of the event loop. */
  const settleDone = () => {
    const ended = done
    done = []
    running -= ended.length
    for (const slice of slices(ended)) {
      const sending = settle(slice).then(() => {
        settling.delete(sending)
        onFreed()
      })
      settling.add(sending)
    }
    onFreed()
  }
  const finish = (task: Task) => {
    const { value } = JSON.parse(task.body) as Payload
    if (done.push({ task, result: JSON.stringify({ value }) }) === 1) setImmediate(settleDone)
  }
  const begin = (task: Task) => {
    held.set(task.token, (held.get(task.token) ?? 0) + 1)
    if (sleepMillis === 0) finish(task)
    else setTimeout(finish, sleepMillis, task)
  }
  const loop = async () => {
    while (!stopped) {
      const free = settling.size < maxSettling ? Math.min(maxBatch, concurrency - running) : 0
      const claimed = free > 0 ? await store.claim(free, leaseMillis) : []
      running += claimed.length
      claimed.forEach(begin)
      isFull = free === 0
      if (claimed.length < free || isFull) await alarm.rest(lookMillis)
    }
    while (running > 0 || settling.size > 0) await alarm.rest(lookMillis)
  }
  const renewing = setInterval(() => {
    if (held.size > 0) void store.renew([...held.keys()], leaseMillis)
  }, leaseMillis / 3)
  const ignoreMessages = await store.onMessages(alarm.wake, concurrency)
  const looping = loop()
  return {
    finished: counter.reached,
    stop: async () => {
      stopped = true
      alarm.wake()
      await looping
      clearInterval(renewing)
      await ignoreMessages()
    }
  }
}

/** Makes the session of a store. */
export const makeSession = <Task extends ClaimedTask>(store: FloorPlusStore<Task>): Session => {
  const enqueue = makeBatches(store.enqueue, store.splitsBatches)
  const waiting = new Map<string, (result: string) => void>()
  const receive = (results: ReadonlyArray<Result>) => {
    for (const [id, result] of results) {
      waiting.get(id)?.(result)
      waiting.delete(id)
    }
  }
  const awaited = () => [...waiting.keys()]
  let receiving: Promise<void> | undefined

  const add = async (payload: Payload) => {
    const task = newTask(payload)
    await enqueue(task)
    return task.id
  }
  const call = async (payload: Payload) => {
    const task = newTask(payload)
    const result = new Promise<string>((resolve) => waiting.set(task.id, resolve))
    await enqueue(task)
    return (JSON.parse(await result) as { readonly value: number }).value
  }
  const read = async (ids: ReadonlyArray<string>) => (await Promise.all(slices(ids).map(store.read))).flat()

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) await store.enqueue([newTask(payload)])
    },
    concurrently: (payloads, inFlight) => forEach(payloads, inFlight, add),
    bulk: async (chunks) => {
      const ids: Array<string> = []
      for (const payloads of chunks) {
        const tasks = payloads.map(newTask)
        await Promise.all(slices(tasks).map(store.enqueue))
        ids.push(...tasks.map(({ id }) => id))
      }
      return ids
    },
    work: (options) => startWorker(store, options),
    roundTrips: async (options) => {
      await (receiving ??= store.onResults(receive, awaited))
      const sweep = setInterval(() => void read(awaited()).then(receive), sweepMillis)
      try {
        return await roundTrips(options, call)
      } finally {
        clearInterval(sweep)
      }
    },
    check: async (ids) => (await read(ids.map(String))).length,
    close: store.close
  }
}

/** Printed for every floor+. */
export const promises =
  `written by hand, no Effect; a record and a message for each task, claims with a lease of ${leaseMillis / 1000} s that` +
  " is renewed, a token that every result is compared with, ids that are enqueued once, at most" +
  ` ${maxBatch} tasks a statement or script. One queue, no priorities, delays, retries, dead letters or schemas.`
