/**
 * The tasks of the Map store: the rules of the state machine, over the store's data.
 *
 * The numbers in the comments (S1, T3) are those of docs/state-machine.md. Every time is one of the store's clock.
 */
import {
  type CancelAnswer,
  type Created,
  type DeadLetter,
  deadLetterId,
  type DeadLetterQuery,
  type EndedByStart,
  type Heartbeat,
  maxHistorySize,
  type NewDeadLetter,
  type NewRecord,
  type Outcome,
  type ParkedMessage,
  type PublishedRecord,
  type PurgedMessage,
  type Renew,
  type Renewed,
  type Reopened,
  type Settled,
  type Settlement,
  type Start,
  type Started,
  type Swept,
  type TaskRecord,
  type WorkerInfo
} from "chicory/driver"
import {
  after,
  isFinal,
  opened,
  type StoredDeadLetter,
  type StoredTask,
  type StoredWorker
} from "./StoredTask.ts"

/** An end that time or a request brings. */
type End = EndedByStart["reason"]

/** Tasks, dead letters and workers. Each method is one atomic step. */
export class MapTasks {
  private readonly tasks = new Map<string, StoredTask>()
  /** Task ids by scoped key. */
  private readonly keys = new Map<string, string>()
  /** Oldest first. */
  private readonly letters = new Map<string, StoredDeadLetter>()
  private lettersWritten = 0
  private readonly registry = new Map<string, StoredWorker>()

  create(asked: NewRecord, now: number): Created {
    const key = asked.key === undefined ? undefined : JSON.stringify([asked.task, asked.key])
    const holder = key === undefined ? undefined : this.keys.get(key)
    const existing = (holder === undefined ? undefined : this.find(holder, now)) ?? this.find(asked.id, now)
    if (existing !== undefined) return this.compare(existing, asked, key, now)
    const task = this.insert(asked, opened(0, now))
    task.record.expiresAt = asked.expiresMillis === undefined ? null : now + asked.expiresMillis
    task.record.dueAt = asked.delayMillis > 0 ? now + asked.delayMillis : null
    task.payloadHash = asked.payloadHash
    task.reservedUntil = after(now, asked.reservedMillis)
    task.retentionMillis = asked.retentionMillis
    this.reserve(task, key)
    return { _tag: "Created" }
  }

  markPublished({ generation, id, incarnation }: PublishedRecord, now: number): boolean {
    const task = this.find(id, now)
    if (task?.record.incarnation !== incarnation) return false
    // a message of another generation says nothing of this one
    if (task.record.generation === generation) task.reservedUntil = Infinity
    return true
  }

  start(asked: Start, now: number): Started {
    const task = this.find(asked.id, now)
    // S0: the task was forgotten, or its retention is over
    if (task === undefined) return { _tag: "NoRecord" }
    const { record, run } = task
    // S1: the same request again
    if (run !== undefined && run.token === asked.token) {
      task.leaseUntil = now + asked.leaseMillis
      return this.running(task)
    }
    // S2, S3: the task has ended, or the message is not of this task, or of an older generation
    if (isFinal(task) || asked.task !== record.task || asked.incarnation !== record.incarnation) {
      return { _tag: "Drop" }
    }
    if (asked.generation < record.generation) return { _tag: "Drop" }
    // S6: another run is alive
    if (run !== undefined && task.leaseUntil > now) return { _tag: "Busy", millis: task.leaseUntil - now }
    // S4, S7, S8: time has ended the task
    const ended = this.endByTime(task, now)
    if (ended !== undefined) return this.dropped(task, ended)
    let lostWorker: string | undefined
    if (run === undefined) {
      // S5: a retry that is not due
      const dueAt = (record.state === "RETRY" && record.dueAt) || 0
      if (dueAt > now) return { _tag: "Busy", millis: dueAt - now }
    } else {
      record.crashes += 1
      // S9: the worker of the last run vanished, and the task is not to run again
      if (record.crashes >= asked.maxCrashes) {
        this.end(task, "WorkerLost", { queue: asked.queue, body: asked.body }, now)
        return this.dropped(task, "WorkerLost")
      }
      if (asked.generation === record.generation) lostWorker = run.worker
    }
    // S10
    if (asked.generation > record.generation) this.open(task, asked.generation, now)
    record.state = "STARTED"
    record.attempt += 1
    record.worker = asked.worker
    record.startedAt ??= Math.max(now, record.enqueuedAt)
    record.dueAt = null
    task.fence += 1
    task.token = asked.token
    task.run = asked
    task.leaseUntil = now + asked.leaseMillis
    task.retentionMillis = asked.retentionMillis
    task.reservedUntil = Infinity
    return lostWorker === undefined ? this.running(task) : { ...this.running(task), lostWorker }
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
      if (goesBack && (record.cancelRequested || task.withdrawn)) {
        this.finish(task, now, { state: "FAILURE", exit: null, ended: "Cancelled" })
        return "Cancelled"
      }
      this.write(task, outcome, now)
      return "Stored"
    }
    // T4 to T7: the answer to a settlement that is repeated, because its first answer was lost
    if (record.ended === "Cancelled") return goesBack ? "Cancelled" : "Lost"
    const isRepeated = goesBack
      ? !isFinal(task) && (outcome._tag === "Retry") === (record.dueAt !== null)
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

  readHistory(id: string, now: number): string | undefined {
    return this.find(id, now)?.history || undefined
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
    if (this.endByTime(task, now) !== undefined) return "AlreadyDone"
    this.end(task, "Cancelled", undefined, now)
    return "Cancelled"
  }

  withdraw({ generation, id, incarnation }: PurgedMessage, now: number): void {
    const task = this.find(id, now)
    // W1
    if (task === undefined || isFinal(task)) return
    if (task.record.incarnation !== incarnation || task.record.generation !== generation) return
    // W2, W3
    if (task.run !== undefined) task.withdrawn = true
    else if (this.endByTime(task, now) === undefined) this.end(task, "Cancelled", undefined, now)
  }

  forget(id: string, now: number): void {
    const task = this.find(id, now)
    if (task === undefined) return
    // F1, F2
    if (isFinal(task)) return this.remove(task)
    this.freeKey(task)
    task.record.ended = "Forgotten"
  }

  reopen(letterId: string, reservedMillis: number, now: number): Reopened | undefined {
    const stored = this.findDeadLetter(letterId, now)
    if (stored === undefined) return undefined
    const { letter } = stored
    const { generation, incarnation, queue, task: name, taskId } = letter
    // a parked message has no task
    if (taskId === null || name === null) return { letter, replayable: true }
    const task = this.find(taskId, now)
    // R4: the id belongs to a later enqueue
    if (task !== undefined && task.record.incarnation !== incarnation) return { letter, replayable: false }
    if (task === undefined) {
      // R1
      const made = this.insert({ id: taskId, task: name, incarnation, queue }, opened(generation + 1, now))
      made.fence = stored.fence
      made.retentionMillis = stored.retentionMillis
      made.reservedUntil = after(now, reservedMillis)
    } else if (isFinal(task) && task.record.generation <= generation) {
      // R2
      this.open(task, generation + 1, now)
      task.reservedUntil = after(now, reservedMillis)
    } else if (!isFinal(task) && task.record.generation === generation + 1) {
      // R5
      this.renewReservation(task, reservedMillis, now)
    }
    // R3: otherwise the replay was done before
    return { letter, replayable: true }
  }

  park(parked: ParkedMessage, now: number): void {
    if (this.findDeadLetter(parked.deadLetterId, now) !== undefined) return
    const { body, exit, deadLetterId: id, queue, reason, retentionMillis } = parked
    this.letters.set(id, {
      letter: {
        id,
        taskId: null,
        task: null,
        incarnation: "",
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
  sweep(limit: number, now: number): Swept {
    const due = [...this.tasks.values()].filter((task) => this.isDue(task, now)).slice(0, limit)
    const lost: Array<string> = []
    for (const task of due) {
      const ended = this.endByTime(task, now)
      if (ended === undefined) this.remove(task)
      else if (ended === "WorkerLost") lost.push(task.record.task)
    }
    const letters = [...this.letters].filter(([, { removeAt }]) => removeAt <= now).slice(0, limit)
    for (const [id] of letters) this.letters.delete(id)
    const workers = [...this.registry].filter(([, { removeAt }]) => removeAt <= now).slice(0, limit)
    for (const [id] of workers) this.registry.delete(id)
    return { handled: due.length + letters.length + workers.length, lost }
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

  private insert(
    { id, incarnation, queue, task: name }: Pick<TaskRecord, "id" | "task" | "incarnation" | "queue">,
    record: ReturnType<typeof opened>
  ): StoredTask {
    const task: StoredTask = {
      record: { id, task: name, incarnation, queue, ...record },
      key: undefined,
      payloadHash: "",
      reservedUntil: Infinity,
      withdrawn: false,
      retentionMillis: undefined,
      fence: 0,
      token: null,
      run: undefined,
      leaseUntil: 0,
      history: ""
    }
    this.tasks.set(id, task)
    return task
  }

  /** Opens a generation: nothing is counted, and no failure is kept. */
  private open(task: StoredTask, generation: number, now: number): void {
    Object.assign(task.record, opened(generation, now))
    task.withdrawn = false
    task.history = ""
  }

  /** E1 to E4: whether a request is for the task that exists. */
  private compare(task: StoredTask, asked: NewRecord, key: string | undefined, now: number): Created {
    const { record, reservedUntil } = task
    const isUnknown = task.payloadHash === ""
    const same =
      record.task === asked.task &&
      record.ended !== "Forgotten" &&
      (isUnknown || asked.payloadHash === "" || task.payloadHash === asked.payloadHash)
    if (same && isUnknown) {
      task.payloadHash = asked.payloadHash
      if (task.key === undefined) this.reserve(task, key)
    }
    const published = reservedUntil === Infinity
    // E4
    if (same) this.renewReservation(task, asked.reservedMillis, now)
    const { generation, id, incarnation } = record
    return { _tag: "Existing", id, incarnation, generation, same, published }
  }

  /** Keeps a reservation for at least as long. */
  private renewReservation(task: StoredTask, reservedMillis: number | undefined, now: number): void {
    if (task.reservedUntil === Infinity) return
    task.reservedUntil = Math.max(task.reservedUntil, after(now, reservedMillis))
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

  private running({ fence, record: { attempt, crashes, retries } }: StoredTask) {
    return { _tag: "Run", fence, attempt, retries, crashes } as const
  }

  /** The answer to the start that ended a task. */
  private dropped({ record: { attempt, crashes, worker } }: StoredTask, reason: End): Started {
    return { _tag: "Drop", ended: { reason, attempt, crashes, worker } }
  }

  /** L1 to L3. Returns how time has ended the task, and writes the end; `undefined`: it goes on. */
  private endByTime(task: StoredTask, now: number): End | undefined {
    const { record, run } = task
    if (isFinal(task)) return undefined
    if (run === undefined) {
      if (record.expiresAt === null || record.expiresAt > now) return undefined
      this.end(task, "Expired", undefined, now)
      return "Expired"
    }
    if (task.leaseUntil > now) return undefined
    const isToStop = record.cancelRequested || task.withdrawn
    if (!isToStop && run.deliveryMode === "at-least-once") return undefined
    const ended = isToStop ? "Cancelled" : "WorkerLost"
    this.end(task, ended, run, now)
    return ended
  }

  /** Ends a task without the exit of a run. */
  private end(
    task: StoredTask,
    ended: End,
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

  /** The terminal write. F3: a forgotten task is removed instead. */
  private finish(
    task: StoredTask,
    now: number,
    end: Pick<TaskRecord, "exit" | "ended"> & { readonly state: "SUCCESS" | "FAILURE" }
  ): void {
    task.run = undefined
    if (task.record.ended === "Forgotten") return this.remove(task)
    Object.assign(task.record, end, { finishedAt: now, dueAt: null })
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
        task.history = (task.history + (outcome.failure ?? "")).slice(-maxHistorySize)
        record.dueAt = now + outcome.afterMillis
        break
      case "Release":
        record.attempt -= 1
        record.dueAt = null
        break
    }
    record.state = record.retries > 0 ? "RETRY" : "PENDING"
    task.run = undefined
  }

  private writeDeadLetter(task: StoredTask, written: NewDeadLetter, exit: string | null, now: number): void {
    const { attempt, generation, id: taskId, incarnation, task: name, worker } = task.record
    const { body, queue, reason, retentionMillis } = written
    const id = deadLetterId(taskId, task.record)
    this.letters.delete(id)
    this.letters.set(id, {
      letter: {
        id,
        taskId,
        task: name,
        incarnation,
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
    const { cancelRequested, expiresAt, finishedAt } = task.record
    if (finishedAt !== null) return after(finishedAt, task.retentionMillis) <= now
    if (task.run !== undefined) {
      const endsWithLease = cancelRequested || task.withdrawn || task.run.deliveryMode === "at-most-once"
      return endsWithLease && task.leaseUntil <= now
    }
    return task.reservedUntil <= now || (expiresAt !== null && expiresAt <= now)
  }
}
