/**
 * A backend that keeps tasks in a `Map`: the smallest driver that passes the conformance suite.
 *
 * JavaScript runs a function to its end, so each operation here is one atomic step. A store elsewhere uses a
 * transaction, a script or a compare-and-set instead. Every time is that of `Clock`, which stands for the store's clock.
 * The numbers in the comments (S1, T3) are those of docs/state-machine.md.
 */
import type {
  BackendDriver,
  CancelAnswer,
  Created,
  DeadLetter,
  DeadLetterQuery,
  Heartbeat,
  NewDeadLetter,
  NewRecord,
  Outcome,
  ParkedMessage,
  Renew,
  Renewed,
  Settled,
  Settlement,
  Start,
  Started,
  StoreDecidedEnd,
  TaskRecord,
  WorkerInfo
} from "chicory/driver"
import { Clock, Effect } from "effect"

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** A task as it is stored: the record, and what the store needs beside it. */
interface StoredTask {
  readonly record: Mutable<TaskRecord>
  /** The idempotency key, scoped by the task's name. */
  key: string | undefined
  /** Empty while it is not known. */
  payloadHash: string
  published: boolean
  /** Counted from the end; `undefined`: for ever. */
  retentionMillis: number | undefined
  /** The number of the last run, over all generations. */
  fence: number
  /** The token of the last run. It stays after the run's settlement; `null` after an end that the store decided. */
  token: string | null
  /** The request of the open run. Another store keeps `queue` and `body` of at-most-once runs only. */
  run: Start | undefined
  leaseUntil: number
  /** When a retry is due; `null` after a release. */
  dueAt: number | null
}

interface StoredDeadLetter {
  readonly letter: DeadLetter
  readonly removeAt: number
  /** For a record that is missing when the dead letter is replayed. */
  readonly fence: number
  readonly retentionMillis: number | undefined
}

interface StoredWorker {
  readonly info: WorkerInfo
  readonly removeAt: number
}

const after = (now: number, millis: number | undefined): number => now + (millis ?? Infinity)

const isFinal = ({ record: { state } }: StoredTask): boolean => state === "SUCCESS" || state === "FAILURE"

/** The fields of a record at the start of a generation. */
const opened = (generation: number, enqueuedAt: number | null) => ({
  state: "PENDING" as const,
  generation,
  attempt: 0,
  retries: 0,
  crashes: 0,
  exit: null,
  progress: null,
  worker: null,
  cancelRequested: false,
  ended: null,
  enqueuedAt,
  startedAt: null,
  finishedAt: null,
  expiresAt: null
})

class MapTasks {
  private readonly tasks = new Map<string, StoredTask>()
  /** Task ids by scoped key. */
  private readonly keys = new Map<string, string>()
  /** Oldest first. */
  /** The oldest first. */
  private readonly letters = new Map<string, StoredDeadLetter>()
  private lettersWritten = 0
  private readonly registry = new Map<string, StoredWorker>()

  create(asked: NewRecord, now: number): Created {
    const key = asked.key === undefined ? undefined : JSON.stringify([asked.task, asked.key])
    const holder = key === undefined ? undefined : this.keys.get(key)
    const existing = (holder === undefined ? undefined : this.find(holder, now)) ?? this.find(asked.id, now)
    if (existing !== undefined) return this.compare(existing, asked, key, now)
    const task = this.insert(asked.id, asked.task, opened(0, now))
    task.record.expiresAt = asked.expiresMillis === undefined ? null : now + asked.expiresMillis
    task.payloadHash = asked.payloadHash
    task.published = asked.published
    task.retentionMillis = asked.retentionMillis
    this.reserve(task, key)
    return { _tag: "Created" }
  }

  markPublished(id: string, now: number): void {
    const task = this.find(id, now)
    if (task !== undefined) task.published = true
  }

  start(asked: Start, now: number): Started {
    const task = this.find(asked.id, now) ?? this.createForRun(asked, now)
    const { record, run } = task
    // S1: the same request again
    if (run !== undefined && run.token === asked.token) {
      task.leaseUntil = now + asked.leaseMillis
      return this.running(task)
    }
    // S2, S3: the task has ended, or the message is of an older generation
    if (isFinal(task) || asked.generation < record.generation) return { _tag: "Drop" }
    // S6: another run is alive
    if (run !== undefined && task.leaseUntil > now) return { _tag: "Busy", millis: task.leaseUntil - now }
    // S4, S7: time has ended the task
    if (this.endByTime(task, now)) return { _tag: "Drop" }
    if (run === undefined) {
      // S5: a retry that is not due
      if (task.dueAt !== null && task.dueAt > now) return { _tag: "Busy", millis: task.dueAt - now }
    } else {
      record.crashes += 1
      // S8, S9: the worker of the last run vanished, and the task is not to run again
      const message = { queue: asked.queue, body: asked.body }
      if (record.cancelRequested) return this.endAndDrop(task, "Cancelled", message, now)
      if (record.crashes >= asked.maxCrashes) return this.endAndDrop(task, "WorkerLost", message, now)
    }
    // S10
    if (asked.generation > record.generation) Object.assign(record, opened(asked.generation, now))
    record.state = "STARTED"
    record.attempt += 1
    record.worker = asked.worker
    record.startedAt ??= now
    task.fence += 1
    task.token = asked.token
    task.run = asked
    task.leaseUntil = now + asked.leaseMillis
    task.retentionMillis = asked.retentionMillis
    task.published = true
    return this.running(task)
  }

  renew(renewal: Renew, now: number): Renewed {
    const task = this.find(renewal.id, now)
    // N1: no open run, or another one
    if (task?.run?.token !== renewal.token) return "Lost"
    // N2: also after the lease ran out
    task.leaseUntil = now + renewal.leaseMillis
    if (renewal.progress !== undefined) task.record.progress = renewal.progress
    return task.record.cancelRequested ? "CancelRequested" : "Held"
  }

  settle({ id, outcome, token }: Settlement, now: number): Settled {
    const task = this.find(id, now)
    // T1: the run was superseded
    if (task === undefined || task.token !== token) return "Lost"
    const { record, run } = task
    const goesBack = outcome._tag === "Retry" || outcome._tag === "Release"
    if (run !== undefined) {
      // T2, T3
      if (goesBack && record.cancelRequested) {
        this.finish(task, now, { state: "FAILURE", exit: null, ended: "Cancelled" })
        return "Cancelled"
      }
      this.write(task, outcome, now)
      return "Stored"
    }
    // T4 to T7: the answer to a settlement that is repeated, because its first answer was lost
    if (record.ended === "Cancelled") return goesBack ? "Cancelled" : "Lost"
    const isRepeated = goesBack
      ? !isFinal(task) && (outcome._tag === "Retry") === (task.dueAt !== null)
      : record.state === (outcome._tag === "Success" ? "SUCCESS" : "FAILURE") && record.exit === outcome.exit
    return isRepeated ? "Stored" : "Lost"
  }

  read(id: string, now: number): TaskRecord | undefined {
    const task = this.find(id, now)
    if (task === undefined) return undefined
    this.endByTime(task, now)
    // an end can remove the record: of a forgotten task, or where retention is zero
    const current = this.find(id, now)
    return current === undefined ? undefined : { ...current.record }
  }

  cancel(id: string, now: number): CancelAnswer {
    const task = this.find(id, now)
    if (task === undefined) return "Unknown"
    // C1
    if (isFinal(task)) return "AlreadyDone"
    // C2: also over a lease that ran out
    if (task.run !== undefined) {
      task.record.cancelRequested = true
      return "Requested"
    }
    // C3, C4
    if (this.endByTime(task, now)) return "AlreadyDone"
    this.end(task, "Cancelled", undefined, now)
    return "Cancelled"
  }

  forget(id: string, now: number): void {
    const task = this.find(id, now)
    if (task === undefined) return
    // F1, F2
    if (isFinal(task)) return this.remove(task)
    this.freeKey(task)
    task.record.ended = "Forgotten"
  }

  reopen(letterId: string, now: number): DeadLetter | undefined {
    const stored = this.findDeadLetter(letterId, now)
    if (stored === undefined) return undefined
    const { generation, task: name, taskId } = stored.letter
    // a parked message has no task
    if (taskId === null || name === null) return stored.letter
    const task = this.find(taskId, now)
    if (task === undefined) {
      // R1
      const made = this.insert(taskId, name, opened(generation + 1, now))
      made.fence = stored.fence
      made.retentionMillis = stored.retentionMillis
    } else if (isFinal(task) && task.record.generation <= generation) {
      // R2
      Object.assign(task.record, opened(generation + 1, now))
      task.dueAt = null
    }
    // R3: otherwise the replay was done before
    return stored.letter
  }

  park(parked: ParkedMessage, now: number): void {
    if (this.findDeadLetter(parked.deadLetterId, now) !== undefined) return
    const { body, exit, deadLetterId: id, queue, reason, retentionMillis } = parked
    this.letters.set(id, {
      letter: {
        id,
        taskId: null,
        task: null,
        generation: 0,
        queue,
        reason,
        exit,
        worker: null,
        body,
        attempts: 0,
        at: now,
        order: ++this.lettersWritten
      },
      removeAt: after(now, retentionMillis),
      fence: 0,
      retentionMillis: undefined
    })
  }

  getDeadLetter(id: string, now: number): DeadLetter | undefined {
    return this.findDeadLetter(id, now)?.letter
  }

  page({ after: last, limit, task }: DeadLetterQuery, now: number): ReadonlyArray<DeadLetter> {
    // a position and not a letter, which may be gone by now
    return this.alive(now)
      .toReversed()
      .filter(({ order }) => last === undefined || order < last.order)
      .filter((letter) => task === undefined || letter.task === task)
      .slice(0, limit)
  }

  count(task: string | undefined, now: number): number {
    return this.alive(now).filter((letter) => task === undefined || letter.task === task).length
  }

  removeDeadLetter(id: string, now: number): boolean {
    return this.findDeadLetter(id, now) !== undefined && this.letters.delete(id)
  }

  heartbeat(worker: Heartbeat, ttlMillis: number, now: number): void {
    const startedAt = this.workers(now).find(({ id }) => id === worker.id)?.startedAt ?? now
    const info = { ...worker, startedAt, seenAt: now }
    this.registry.set(worker.id, { info, removeAt: now + ttlMillis })
  }

  unregister(worker: string): void {
    this.registry.delete(worker)
  }

  workers(now: number): ReadonlyArray<WorkerInfo> {
    return [...this.registry.values()].filter(({ removeAt }) => removeAt > now).map(({ info }) => info)
  }

  /** Scans all entries. A large store needs an index of the due ones. */
  sweep(limit: number, now: number): number {
    const due = [...this.tasks.values()].filter((task) => this.isDue(task, now)).slice(0, limit)
    for (const task of due) if (isFinal(task) || !this.endByTime(task, now)) this.remove(task)
    const letters = [...this.letters].filter(([, { removeAt }]) => removeAt <= now).slice(0, limit)
    for (const [id] of letters) this.letters.delete(id)
    const workers = [...this.registry].filter(([, { removeAt }]) => removeAt <= now).slice(0, limit)
    for (const [id] of workers) this.registry.delete(id)
    return due.length + letters.length + workers.length
  }

  /** A task whose retention ran out is not there, whether or not it was swept. */
  private find(id: string, now: number): StoredTask | undefined {
    const task = this.tasks.get(id)
    const { finishedAt = null } = task?.record ?? {}
    if (task === undefined || finishedAt === null || after(finishedAt, task.retentionMillis) > now)
      return task
    this.remove(task)
    return undefined
  }

  private insert(id: string, name: string, record: ReturnType<typeof opened>): StoredTask {
    const task: StoredTask = {
      record: { id, task: name, ...record },
      key: undefined,
      payloadHash: "",
      published: true,
      retentionMillis: undefined,
      fence: 0,
      token: null,
      run: undefined,
      leaseUntil: 0,
      dueAt: null
    }
    this.tasks.set(id, task)
    return task
  }

  /** The message came before its record: a producer died between the two, or is slow. */
  private createForRun({ expiresMillis, generation, id, task: name }: Start, now: number): StoredTask {
    const task = this.insert(id, name, opened(generation, null))
    if (expiresMillis !== undefined) task.record.expiresAt = now + expiresMillis
    return task
  }

  /** E1 to E3: whether a request is for the task that exists. */
  private compare(task: StoredTask, asked: NewRecord, key: string | undefined, now: number): Created {
    const { record } = task
    const isUnknown = task.payloadHash === ""
    const same =
      record.task === asked.task &&
      (isUnknown || asked.payloadHash === "" || task.payloadHash === asked.payloadHash)
    if (same && isUnknown && record.ended !== "Forgotten") {
      task.payloadHash = asked.payloadHash
      record.enqueuedAt ??= now
      if (task.key === undefined) this.reserve(task, key)
    }
    return { _tag: "Existing", id: record.id, same, published: task.published }
  }

  private reserve(task: StoredTask, key: string | undefined): void {
    if (key === undefined) return
    task.key = key
    this.keys.set(key, task.record.id)
  }

  private freeKey(task: StoredTask): void {
    if (task.key !== undefined) this.keys.delete(task.key)
    task.key = undefined
  }

  private remove(task: StoredTask): void {
    this.freeKey(task)
    this.tasks.delete(task.record.id)
  }

  private running({ fence, record: { attempt, crashes, retries } }: StoredTask): Started {
    return { _tag: "Run", fence, attempt, retries, crashes }
  }

  /** L1 to L3. Whether time has ended the task; then the end is written. */
  private endByTime(task: StoredTask, now: number): boolean {
    const { record, run } = task
    if (isFinal(task)) return false
    if (run === undefined) {
      if (record.expiresAt === null || record.expiresAt > now) return false
      this.end(task, "Expired", undefined, now)
      return true
    }
    if (run.deliveryMode !== "at-most-once" || task.leaseUntil > now) return false
    this.end(task, record.cancelRequested ? "Cancelled" : "WorkerLost", run, now)
    return true
  }

  /** Ends a task without the exit of a run. */
  private end(
    task: StoredTask,
    ended: StoreDecidedEnd,
    message: Pick<NewDeadLetter, "queue" | "body"> | undefined,
    now: number
  ): void {
    if (ended === "WorkerLost" && message !== undefined) {
      const { body, queue } = message
      const retentionMillis = task.run?.deadLetterRetentionMillis
      this.writeDeadLetter(task, { reason: "WorkerLost", queue, body, retentionMillis }, null, now)
    }
    task.token = null
    this.finish(task, now, { state: "FAILURE", exit: null, ended })
  }

  private endAndDrop(...args: Parameters<MapTasks["end"]>): Started {
    this.end(...args)
    return { _tag: "Drop" }
  }

  /** The terminal write. F3: a forgotten task is removed instead. */
  private finish(
    task: StoredTask,
    now: number,
    end: Pick<TaskRecord, "exit" | "ended"> & { readonly state: "SUCCESS" | "FAILURE" }
  ): void {
    task.run = undefined
    if (task.record.ended === "Forgotten") return this.remove(task)
    Object.assign(task.record, end, { finishedAt: now })
  }

  /** T3: the outcome of the open run. */
  private write(task: StoredTask, outcome: Outcome, now: number): void {
    const { record } = task
    switch (outcome._tag) {
      case "Success":
        task.retentionMillis = outcome.retentionMillis
        return this.finish(task, now, { state: "SUCCESS", exit: outcome.exit, ended: null })
      case "Failure":
        task.retentionMillis = outcome.retentionMillis
        if (outcome.deadLetter !== undefined)
          this.writeDeadLetter(task, outcome.deadLetter, outcome.exit, now)
        return this.finish(task, now, { state: "FAILURE", exit: outcome.exit, ended: null })
      case "Retry":
        record.retries += 1
        task.dueAt = now + outcome.afterMillis
        break
      case "Release":
        record.attempt -= 1
        task.dueAt = null
        break
    }
    record.state = record.retries > 0 ? "RETRY" : "PENDING"
    task.run = undefined
  }

  private writeDeadLetter(task: StoredTask, written: NewDeadLetter, exit: string | null, now: number): void {
    const { attempt, generation, id: taskId, task: name, worker } = task.record
    const { body, queue, reason, retentionMillis } = written
    const id = `${taskId}:${generation}`
    this.letters.delete(id)
    this.letters.set(id, {
      letter: {
        id,
        taskId,
        task: name,
        generation,
        queue,
        reason,
        exit,
        worker,
        body,
        attempts: attempt,
        at: now,
        order: ++this.lettersWritten
      },
      removeAt: after(now, retentionMillis),
      fence: task.fence,
      retentionMillis: task.retentionMillis
    })
  }

  private findDeadLetter(id: string, now: number): StoredDeadLetter | undefined {
    const stored = this.letters.get(id)
    return stored === undefined || stored.removeAt <= now ? undefined : stored
  }

  private alive(now: number): ReadonlyArray<DeadLetter> {
    return [...this.letters.values()].filter(({ removeAt }) => removeAt > now).map(({ letter }) => letter)
  }

  private isDue(task: StoredTask, now: number): boolean {
    const { enqueuedAt, expiresAt, finishedAt } = task.record
    if (finishedAt !== null) return after(finishedAt, task.retentionMillis) <= now
    if (task.run !== undefined) return task.run.deliveryMode === "at-most-once" && task.leaseUntil <= now
    // a reservation whose message was never sent stays for as long as a result would
    const isStranded =
      !task.published && enqueuedAt !== null && after(enqueuedAt, task.retentionMillis) <= now
    return isStranded || (expiresAt !== null && expiresAt <= now)
  }
}

const at = <A>(f: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, f)

/** Applies an operation to the items of a batch one after the other: one answer an item, in order. */
const each =
  <In, Out>(f: (item: In, now: number) => Out) =>
  (items: ReadonlyArray<In>): Effect.Effect<ReadonlyArray<Out>> =>
    at((now) => items.map((item) => f(item, now)))

const eachVoid =
  <In>(f: (item: In, now: number) => void) =>
  (items: ReadonlyArray<In>): Effect.Effect<void> =>
    at((now) => items.forEach((item) => f(item, now)))

/** Makes the driver, over an empty store. */
export const makeMapBackend: Effect.Effect<BackendDriver<never>> = Effect.sync(() => {
  const tasks = new MapTasks()
  return {
    name: "map",
    capabilities: { hints: false },
    create: each((record, now) => tasks.create(record, now)),
    markPublished: eachVoid((id, now) => tasks.markPublished(id, now)),
    start: each((request, now) => tasks.start(request, now)),
    renew: each((renewal, now) => tasks.renew(renewal, now)),
    settle: each((settlement, now) => tasks.settle(settlement, now)),
    parkMessage: eachVoid((message, now) => tasks.park(message, now)),
    read: each((id, now) => tasks.read(id, now)),
    // without hints a subscription is a read
    subscribe: each((id, now) => tasks.read(id, now)),
    unsubscribe: () => Effect.void,
    cancel: each((id, now) => tasks.cancel(id, now)),
    forget: eachVoid((id, now) => tasks.forget(id, now)),
    reopen: each((id, now) => tasks.reopen(id, now)),
    getDeadLetters: each((id, now) => tasks.getDeadLetter(id, now)),
    listDeadLetters: (query) => at((now) => tasks.page(query, now)),
    countDeadLetters: (task) => at((now) => tasks.count(task, now)),
    removeDeadLetters: each((id, now) => tasks.removeDeadLetter(id, now)),
    heartbeat: (worker, ttlMillis) => at((now) => tasks.heartbeat(worker, ttlMillis, now)),
    unregisterWorker: (worker) => Effect.sync(() => tasks.unregister(worker)),
    workers: at((now) => tasks.workers(now)),
    sweep: (limit) => at((now) => tasks.sweep(limit, now))
  }
})
