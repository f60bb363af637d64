/**
 * Records, dead letters and the registry of workers in this process.
 *
 * An operation runs in one step of its fiber, which makes it atomic. Every time is that of the caller's `Clock`.
 * What has a deadline (an expiry, the lease of an at-most-once run, a retention) waits in a heap, so that neither
 * a read nor the sweep looks at what is not due.
 */
import { Clock, Effect, Latch, Stream, type Types } from "effect"
import type {
  BackendDriver,
  CancelAnswer,
  Created,
  DeadLetter,
  StoreDecidedEnd,
  Heartbeat,
  NewRecord,
  Outcome,
  DeadLetterQuery,
  ParkedMessage,
  Renew,
  Renewed,
  Settled,
  Settlement,
  Start,
  Started,
  TaskRecord,
  WorkerInfo
} from "../BackendDriver.ts"
import { Heap, type Member } from "../internal/concurrency/Heap.ts"
import { isTerminal } from "../TaskState.ts"

/** Something that is to be dealt with at a time. */
interface Timed extends Member {
  /** Epoch milliseconds, or `Infinity`. */
  deadline: number
}

/** A run that is open. */
interface Run {
  readonly token: string
  readonly worker: string
  readonly queue: string
  readonly body: string | Uint8Array
  readonly delivery: Start["deliveryMode"]
  readonly letterRetention: number | undefined
  leaseUntil: number
}

/** The last settlement of a record, for the one that repeats it. */
interface Closed {
  readonly token: string
  readonly outcome: Outcome
  readonly answer: Settled
}

interface Row extends Types.Mutable<TaskRecord>, Timed {
  key: string | undefined
  /** Empty while it is not known. */
  hash: string
  published: boolean
  fence: number
  retention: number | undefined
  /** Before that time a retry is not started. */
  dueAt: number
  /** Set exactly in `STARTED`. */
  run: Run | undefined
  closed: Closed | undefined
}

interface Letter extends Timed {
  readonly letter: DeadLetter
  /** Kept for a record that is gone when the letter is replayed. */
  readonly fence: number
  readonly retention: number | undefined
}

interface Worker {
  readonly info: WorkerInfo
  readonly until: number
}

const DROP: Started = { _tag: "Drop" }

/** More ids than these that nobody took make one `resync`. */
const MAX_NEWS = 10_000

const earlier = (self: Timed, that: Timed): boolean => self.deadline < that.deadline

const after = (now: number, millis: number | undefined): number =>
  millis === undefined ? Infinity : now + millis

/** The name's length keeps two names and keys apart that read the same when joined. */
const scoped = (task: string, key: string): string => `${task.length}:${task}${key}`

const exitOf = (outcome: Outcome): string | undefined => ("exit" in outcome ? outcome.exit : undefined)

const snapshot = (row: Row): TaskRecord => ({
  id: row.id,
  task: row.task,
  state: row.state,
  generation: row.generation,
  attempt: row.attempt,
  retries: row.retries,
  crashes: row.crashes,
  exit: row.exit,
  progress: row.progress,
  worker: row.worker,
  cancelRequested: row.cancelRequested,
  ended: row.ended,
  enqueuedAt: row.enqueuedAt,
  startedAt: row.startedAt,
  finishedAt: row.finishedAt,
  expiresAt: row.expiresAt
})

/** What a record is at the start of a generation. */
const fresh = (generation: number) => ({
  state: "PENDING" as const,
  generation,
  attempt: 0,
  retries: 0,
  crashes: 0,
  exit: null,
  progress: null,
  worker: null,
  cancelRequested: false,
  startedAt: null,
  finishedAt: null,
  dueAt: 0,
  run: undefined,
  closed: undefined
})

/** A task that is to wait again, as a new generation, without an expiry. */
const open = (row: Row, generation: number, now: number): void => {
  Object.assign(row, fresh(generation), { ended: null, enqueuedAt: now, expiresAt: null })
}

const newRow = (id: string, task: string, generation: number): Row => ({
  ...fresh(generation),
  id,
  task,
  ended: null,
  enqueuedAt: null,
  expiresAt: null,
  key: undefined,
  hash: "",
  published: true,
  fence: 0,
  retention: undefined,
  deadline: Infinity,
  position: -1
})

const deadlineOf = (row: Row): number => {
  if (row.finishedAt !== null) return after(row.finishedAt, row.retention)
  if (row.run !== undefined) return row.run.delivery === "at-most-once" ? row.run.leaseUntil : Infinity
  const stranded = row.published || row.enqueuedAt === null ? Infinity : after(row.enqueuedAt, row.retention)
  return Math.min(row.expiresAt ?? Infinity, stranded)
}

/** Makes the driver, over an empty store. */
export const makeMemoryBackend: Effect.Effect<BackendDriver<never>> = Effect.sync(() => {
  const rows = new Map<string, Row>()
  /** Ids by scoped idempotency key. */
  const keys = new Map<string, string>()
  /** Oldest first. */
  const letters = new Map<string, Letter>()
  const workers = new Map<string, Worker>()
  const rowDeadlines = new Heap<Row>(earlier)
  const letterDeadlines = new Heap<Letter>(earlier)

  const watched = new Set<string>()
  const news = new Set<string>()
  let missed = false
  const hasNews = Latch.makeUnsafe(false)

  const tell = (id: string): void => {
    if (missed) return
    news.add(id)
    if (news.size > MAX_NEWS) {
      news.clear()
      missed = true
    }
    hasNews.openUnsafe()
  }
  const changed = (row: Row): void => {
    if (watched.has(row.id)) tell(row.id)
  }

  const schedule = (row: Row): void => {
    rowDeadlines.remove(row)
    row.deadline = deadlineOf(row)
    if (row.deadline !== Infinity) rowDeadlines.push(row)
  }

  const freeKey = (row: Row): void => {
    if (row.key !== undefined) keys.delete(row.key)
    row.key = undefined
  }

  const dropRow = (row: Row): void => {
    rowDeadlines.remove(row)
    rows.delete(row.id)
    freeKey(row)
    changed(row)
  }

  const dropLetter = (entry: Letter): void => {
    letterDeadlines.remove(entry)
    letters.delete(entry.letter.id)
  }

  const addLetter = (
    letter: DeadLetter,
    retention: number | undefined,
    record: Pick<Row, "fence" | "retention">
  ): void => {
    const older = letters.get(letter.id)
    if (older !== undefined) dropLetter(older)
    const entry: Letter = {
      letter,
      fence: record.fence,
      retention: record.retention,
      deadline: after(letter.at, retention),
      position: -1
    }
    letters.set(letter.id, entry)
    if (entry.deadline !== Infinity) letterDeadlines.push(entry)
  }

  const findLetter = (id: string, now: number): Letter | undefined => {
    const entry = letters.get(id)
    return entry === undefined || entry.deadline <= now ? undefined : entry
  }

  /** Writes the letter of the run that ends the task. */
  const bury = (
    row: Row,
    message: Pick<Run, "queue" | "body">,
    now: number,
    reason: string,
    exit: string | null,
    retention: number | undefined
  ): void => {
    const id = `${row.id}:${row.generation}`
    const { body, queue } = message
    const { attempt: attempts, generation, task, worker } = row
    addLetter(
      { id, taskId: row.id, task, generation, queue, reason, exit, worker, body, attempts, at: now },
      retention,
      row
    )
  }

  /** A record as anybody sees it: not there once its retention ran out. */
  const find = (id: string, now: number): Row | undefined => {
    const row = rows.get(id)
    if (row === undefined || row.finishedAt === null || row.deadline > now) return row
    dropRow(row)
    return undefined
  }

  /** The terminal write. */
  const finish = (
    row: Row,
    now: number,
    state: "SUCCESS" | "FAILURE",
    exit: string | null,
    ended: StoreDecidedEnd | null
  ): void => {
    row.run = undefined
    if (row.ended === "Forgotten") return dropRow(row)
    row.state = state
    row.exit = exit
    row.ended = ended
    row.finishedAt = now
    schedule(row)
    changed(row)
  }

  /** Ends a task whose run was lost for good. */
  const lose = (row: Row, run: Run, now: number): void => {
    if (row.cancelRequested) return finish(row, now, "FAILURE", null, "Cancelled")
    bury(row, run, now, "WorkerLost", null, run.letterRetention)
    finish(row, now, "FAILURE", null, "WorkerLost")
  }

  /** Ends what expired while it waited, and a lost run that may not be repeated. `false`: neither. */
  const endOverdue = (row: Row, now: number): boolean => {
    if (row.finishedAt !== null || row.deadline > now) return false
    if (row.run !== undefined) lose(row, row.run, now)
    else if (row.expiresAt !== null && row.expiresAt <= now) finish(row, now, "FAILURE", null, "Expired")
    else return false
    return true
  }

  const create = (record: NewRecord, now: number): Created => {
    const key = record.key === undefined ? undefined : scoped(record.task, record.key)
    const holder = key === undefined ? undefined : keys.get(key)
    const row = (holder === undefined ? undefined : find(holder, now)) ?? find(record.id, now)
    if (row !== undefined) {
      const unknown = row.hash === ""
      const same =
        row.task === record.task && (unknown || record.payloadHash === "" || row.hash === record.payloadHash)
      if (same && unknown && row.ended !== "Forgotten") {
        row.hash = record.payloadHash
        row.enqueuedAt ??= now
        if (key !== undefined && row.key === undefined) {
          row.key = key
          keys.set(key, row.id)
        }
      }
      return { _tag: "Existing", id: row.id, same, published: row.published }
    }
    const made: Row = {
      ...newRow(record.id, record.task, 0),
      key,
      hash: record.payloadHash,
      published: record.published,
      retention: record.retentionMillis,
      enqueuedAt: now,
      expiresAt: record.expiresMillis === undefined ? null : now + record.expiresMillis
    }
    rows.set(made.id, made)
    if (key !== undefined) keys.set(key, made.id)
    schedule(made)
    changed(made)
    return { _tag: "Created" }
  }

  const running = (row: Row): Started => {
    const { attempt, crashes, fence, retries } = row
    return { _tag: "Run", fence, attempt, retries, crashes }
  }

  const start = (ask: Start, now: number): Started => {
    let row = find(ask.id, now)
    if (row === undefined) {
      row = newRow(ask.id, ask.task, ask.generation)
      if (ask.expiresMillis !== undefined) row.expiresAt = now + ask.expiresMillis
      rows.set(row.id, row)
    }
    const run = row.run
    if (run !== undefined && run.token === ask.token) {
      run.leaseUntil = now + ask.leaseMillis
      schedule(row)
      return running(row)
    }
    if (isTerminal(row.state) || ask.generation < row.generation) return DROP
    if (run === undefined) {
      if (endOverdue(row, now)) return DROP
      if (row.dueAt > now) return { _tag: "Busy", millis: row.dueAt - now }
    } else {
      if (run.leaseUntil > now) return { _tag: "Busy", millis: run.leaseUntil - now }
      if (run.delivery === "at-least-once") row.crashes += 1
      if (run.delivery === "at-most-once" || row.cancelRequested || row.crashes >= ask.maxCrashes) {
        lose(row, run.delivery === "at-most-once" ? run : { ...run, queue: ask.queue, body: ask.body }, now)
        return DROP
      }
    }
    if (ask.generation > row.generation) open(row, ask.generation, now)
    row.state = "STARTED"
    row.attempt += 1
    row.fence += 1
    row.worker = ask.worker
    row.startedAt ??= now
    row.retention = ask.retentionMillis
    row.published = true
    row.closed = undefined
    row.run = {
      token: ask.token,
      worker: ask.worker,
      queue: ask.queue,
      body: ask.body,
      delivery: ask.deliveryMode,
      letterRetention: ask.deadLetterRetentionMillis,
      leaseUntil: now + ask.leaseMillis
    }
    schedule(row)
    changed(row)
    return running(row)
  }

  const renew = (renewal: Renew, now: number): Renewed => {
    const row = find(renewal.id, now)
    if (row?.run?.token !== renewal.token) return "Lost"
    row.run.leaseUntil = now + renewal.leaseMillis
    schedule(row)
    if (renewal.progress !== undefined) {
      row.progress = renewal.progress
      changed(row)
    }
    return row.cancelRequested ? "CancelRequested" : "Held"
  }

  const close = (row: Row, outcome: Outcome, now: number): Settled => {
    switch (outcome._tag) {
      case "Success": {
        row.retention = outcome.retentionMillis
        finish(row, now, "SUCCESS", outcome.exit, null)
        return "Stored"
      }
      case "Failure": {
        const letter = outcome.deadLetter
        row.retention = outcome.retentionMillis
        if (letter !== undefined) bury(row, letter, now, letter.reason, outcome.exit, letter.retentionMillis)
        finish(row, now, "FAILURE", outcome.exit, null)
        return "Stored"
      }
      case "Retry":
      case "Release": {
        if (row.cancelRequested) {
          finish(row, now, "FAILURE", null, "Cancelled")
          return "Cancelled"
        }
        if (outcome._tag === "Retry") {
          row.retries += 1
          row.dueAt = now + outcome.afterMillis
        } else {
          row.attempt -= 1
        }
        row.state = row.retries > 0 ? "RETRY" : "PENDING"
        row.run = undefined
        schedule(row)
        changed(row)
        return "Stored"
      }
    }
  }

  const settle = ({ id, outcome, token }: Settlement, now: number): Settled => {
    const row = find(id, now)
    if (row === undefined) return "Lost"
    const { closed, run } = row
    if (run !== undefined && run.token === token) {
      const answer = close(row, outcome, now)
      row.closed = { token, outcome, answer }
      return answer
    }
    const repeated =
      closed?.token === token &&
      closed.outcome._tag === outcome._tag &&
      exitOf(closed.outcome) === exitOf(outcome)
    return repeated ? closed.answer : "Lost"
  }

  const parkMessage = (parked: ParkedMessage, now: number): void => {
    if (findLetter(parked.deadLetterId, now) !== undefined) return
    const { body, exit, deadLetterId: id, queue, reason } = parked
    addLetter(
      {
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
        at: now
      },
      parked.retentionMillis,
      { fence: 0, retention: undefined }
    )
  }

  const read = (id: string, now: number): TaskRecord | undefined => {
    const row = find(id, now)
    if (row === undefined) return undefined
    // what ends here may be gone with that: it was forgotten, or is kept for no time at all
    const current = endOverdue(row, now) ? find(id, now) : row
    return current === undefined ? undefined : snapshot(current)
  }

  const cancel = (id: string, now: number): CancelAnswer => {
    const row = find(id, now)
    if (row === undefined) return "Unknown"
    if (isTerminal(row.state)) return "AlreadyDone"
    if (row.run !== undefined) {
      row.cancelRequested = true
      tell(id)
      return "Requested"
    }
    if (endOverdue(row, now)) return "AlreadyDone"
    finish(row, now, "FAILURE", null, "Cancelled")
    return "Cancelled"
  }

  const forget = (id: string, now: number): void => {
    const row = find(id, now)
    if (row === undefined) return
    if (isTerminal(row.state)) return dropRow(row)
    freeKey(row)
    row.ended = "Forgotten"
    changed(row)
  }

  const reopen = (letterId: string, now: number): DeadLetter | undefined => {
    const entry = findLetter(letterId, now)
    if (entry === undefined) return undefined
    const { generation, task, taskId } = entry.letter
    if (taskId === null || task === null) return entry.letter
    let row = find(taskId, now)
    if (row === undefined) {
      row = { ...newRow(taskId, task, generation), fence: entry.fence, retention: entry.retention }
      rows.set(taskId, row)
    } else if (!isTerminal(row.state) || row.generation > generation) {
      return entry.letter
    }
    open(row, generation + 1, now)
    schedule(row)
    changed(row)
    return entry.letter
  }

  const page = ({ after: last, limit, task }: DeadLetterQuery, now: number): ReadonlyArray<DeadLetter> => {
    const found: Array<DeadLetter> = []
    // where the last letter was removed meanwhile, some are seen again, and none is missed
    let seen = last === undefined || !letters.has(last)
    for (const { deadline, letter } of Array.from(letters.values()).reverse()) {
      if (found.length >= limit) break
      if (seen && deadline > now && (task === undefined || letter.task === task)) found.push(letter)
      if (letter.id === last) seen = true
    }
    return found
  }

  const count = (task: string | undefined, now: number): number => {
    let total = 0
    for (const { deadline, letter } of letters.values()) {
      if (deadline > now && (task === undefined || letter.task === task)) total++
    }
    return total
  }

  const removeLetter = (id: string, now: number): boolean => {
    const entry = findLetter(id, now)
    if (entry === undefined) return false
    dropLetter(entry)
    return true
  }

  const heartbeat = (worker: Heartbeat, ttlMillis: number, now: number): void => {
    const known = workers.get(worker.id)
    const startedAt = known !== undefined && known.until > now ? known.info.startedAt : now
    workers.set(worker.id, { info: { ...worker, startedAt, seenAt: now }, until: now + ttlMillis })
  }

  const alive = (now: number): ReadonlyArray<WorkerInfo> => {
    const found: Array<WorkerInfo> = []
    for (const { info, until } of workers.values()) if (until > now) found.push(info)
    return found
  }

  const sweep = (limit: number, now: number): number => {
    let swept = 0
    for (let n = 0; n < limit; n++, swept++) {
      const row = rowDeadlines.peek()
      if (row === undefined || row.deadline > now) break
      if (!endOverdue(row, now)) dropRow(row)
    }
    for (let n = 0; n < limit; n++, swept++) {
      const entry = letterDeadlines.peek()
      if (entry === undefined || entry.deadline > now) break
      dropLetter(entry)
    }
    let gone = 0
    for (const [id, { until }] of workers) {
      if (until > now || gone === limit) continue
      workers.delete(id)
      gone++
    }
    return swept + gone
  }

  const at = <A>(f: (now: number) => A): Effect.Effect<A> =>
    Clock.clockWith((clock) => Effect.succeed(f(clock.currentTimeMillisUnsafe())))
  const each =
    <In, Out>(f: (item: In, now: number) => Out) =>
    (items: ReadonlyArray<In>): Effect.Effect<ReadonlyArray<Out>> =>
      at((now) => items.map((item) => f(item, now)))
  const eachSilent =
    <In>(f: (item: In, now: number) => void) =>
    (items: ReadonlyArray<In>): Effect.Effect<void> =>
      at((now) => {
        for (const item of items) f(item, now)
      })

  const takeNews = Effect.sync((): ReadonlyArray<string> | "resync" => {
    const taken = missed ? "resync" : Array.from(news)
    missed = false
    news.clear()
    hasNews.closeUnsafe()
    return taken
  })

  return {
    name: "memory",
    capabilities: { hints: true },
    create: each(create),
    markPublished: eachSilent((id, now) => {
      const row = find(id, now)
      if (row === undefined || row.published) return
      row.published = true
      schedule(row)
    }),
    start: each(start),
    renew: each(renew),
    settle: each(settle),
    parkMessage: eachSilent(parkMessage),
    read: each(read),
    subscribe: each((id, now) => {
      watched.add(id)
      return read(id, now)
    }),
    unsubscribe: eachSilent((id) => void watched.delete(id)),
    // the latch opens in the midst of an operation; what the fibers of this turn change goes into one hint
    hints: Stream.fromEffectRepeat(Effect.andThen(Effect.andThen(hasNews.await, Effect.yieldNow), takeNews)),
    cancel: each(cancel),
    forget: eachSilent(forget),
    reopen: each(reopen),
    getDeadLetters: each((id, now) => findLetter(id, now)?.letter),
    listDeadLetters: (query) => at((now) => page(query, now)),
    countDeadLetters: (task) => at((now) => count(task, now)),
    removeDeadLetters: each(removeLetter),
    heartbeat: (worker, ttlMillis) => at((now) => heartbeat(worker, ttlMillis, now)),
    unregisterWorker: (worker) => Effect.sync(() => void workers.delete(worker)),
    workers: at(alive),
    sweep: (limit) => at((now) => sweep(limit, now))
  }
})
