/**
 * The tasks of the memory store: its rows, and the transitions that change them.
 *
 * `internal/task/transitions.ts` decides; this class carries the decisions out.
 */
import type {
  CancelAnswer,
  Created,
  EndedByStart,
  NewRecord,
  PublishedRecord,
  Outcome,
  Renew,
  Renewed,
  Reopened,
  Settled,
  Settlement,
  Start,
  Started,
  Swept,
  TaskRecord
} from "../BackendDriver.ts"
import type { PurgedMessage } from "../BrokerDriver.ts"
import { Heap } from "../internal/concurrency/Heap.ts"
import { maxHistorySize } from "../internal/defaults.ts"
import { deadLetterId } from "../internal/driver/deadLetterId.ts"
import * as Transitions from "../internal/task/transitions.ts"
import { isSooner } from "./Expiring.ts"
import type { MemoryDeadLetters } from "./MemoryDeadLetters.ts"
import type { MemoryHints } from "./MemoryHints.ts"
import * as TaskRow from "./TaskRow.ts"

type Row = TaskRow.TaskRow
type Message = Pick<Start, "queue" | "body">

/** Joins a name and a key. The length keeps ("a", "bc") and ("ab", "c") apart. */
const scopedKey = (task: string, key: string): string => `${task.length}:${task}${key}`

const toRun = ({ attempt, crashes, fence, retries }: Row): Extract<Started, { readonly _tag: "Run" }> => ({
  _tag: "Run",
  fence,
  attempt,
  retries,
  crashes
})

const toEnded = ({ attempt, crashes, worker }: Row, reason: Transitions.ForcedEnd): EndedByStart => ({
  reason,
  attempt,
  crashes,
  worker
})

/** What the rows of tasks act on. */
interface Collaborators {
  readonly deadLetters: MemoryDeadLetters
  readonly hints: MemoryHints
  /** Called with the time when a row is going to be due for the sweep. */
  readonly onDue: (at: number) => void
  /** Called with the id of a task that ends without a run. */
  readonly onEnded: (id: string) => void
}

export class MemoryTasks {
  private readonly deadLetters: MemoryDeadLetters
  private readonly hints: MemoryHints
  private readonly onEnded: (id: string) => void
  private readonly rows = new Map<string, Row>()
  /** Ids by scoped idempotency key. */
  private readonly keys = new Map<string, string>()
  private readonly deadlines = new Heap<Row>(isSooner)
  private readonly onDue: (at: number) => void

  constructor({ deadLetters, hints, onDue, onEnded }: Collaborators) {
    this.deadLetters = deadLetters
    this.hints = hints
    this.onDue = onDue
    this.onEnded = onEnded
  }

  /** The time when the first row is due for the sweep. */
  get nextDueAt(): number {
    return this.deadlines.peek()?.deadline ?? Infinity
  }

  create(record: NewRecord, now: number): Created {
    const key = record.key === undefined ? undefined : scopedKey(record.task, record.key)
    const holder = key === undefined ? undefined : this.keys.get(key)
    const existing = (holder === undefined ? undefined : this.find(holder, now)) ?? this.find(record.id, now)
    if (existing !== undefined) return this.compare(existing, record, key, now)
    const row: Row = {
      ...TaskRow.make(record, 0, now),
      dueAt: record.delayMillis > 0 ? now + record.delayMillis : null,
      payloadHash: record.payloadHash,
      reservedUntil: record.reservedMillis === undefined ? undefined : now + record.reservedMillis,
      retention: record.retentionMillis,
      expiresAt: record.expiresMillis === undefined ? null : now + record.expiresMillis
    }
    if (key !== undefined) this.reserveKey(row, key)
    this.add(row)
    return { _tag: "Created" }
  }

  /** Marks a reservation of that generation as published; returns whether there is a record of that incarnation. */
  markPublished({ generation, id, incarnation }: PublishedRecord, now: number): boolean {
    const row = this.find(id, now)
    if (row?.incarnation !== incarnation) return false
    if (row.generation !== generation) return true
    row.reservedUntil = undefined
    this.schedule(row)
    return true
  }

  start(request: Start, now: number): Started {
    const row = this.find(request.id, now)
    const decision = Transitions.decideStart(row, request, now)
    if (row === undefined) return { _tag: "NoRecord" }
    switch (decision._tag) {
      case "NoRecord":
      case "Drop":
      case "Busy":
        return decision
      case "Repeat":
        row.leaseUntil = now + request.leaseMillis
        this.schedule(row)
        return toRun(row)
      case "End":
        row.crashes = decision.crashes
        this.end(row, decision.ended, now, request)
        return { _tag: "Drop", ended: toEnded(row, decision.ended) }
      case "Run": {
        const { crashes, worker } = row
        if (decision.opens !== undefined) TaskRow.openGeneration(row, decision.opens, now)
        row.crashes = decision.crashes
        this.openRun(row, request, now)
        return decision.crashes > crashes ? { ...toRun(row), lostWorker: worker ?? "unknown" } : toRun(row)
      }
    }
  }

  renew({ id, leaseMillis, progress, token }: Renew, now: number): Renewed {
    const row = this.find(id, now)
    const renewed = Transitions.decideRenew(row, token)
    if (row === undefined || renewed === "Lost") return "Lost"
    row.leaseUntil = now + leaseMillis
    if (progress !== undefined) row.progress = progress
    this.schedule(row)
    if (progress !== undefined) this.hints.notifyChange(id)
    return renewed
  }

  settle({ id, outcome, token }: Settlement, now: number): Settled {
    const row = this.find(id, now)
    const decision = Transitions.decideSettle(row, token, outcome._tag)
    if (row === undefined) return "Lost"
    switch (decision) {
      case "Write":
        this.write(row, outcome, now)
        return "Stored"
      case "Cancel":
        this.finish(row, now, { state: "FAILURE", exit: null, ended: "Cancelled" })
        return "Cancelled"
      case "CompareExit":
        return "exit" in outcome && outcome.exit === row.exit ? "Stored" : "Lost"
      case "Stored":
      case "Cancelled":
      case "Lost":
        return decision
    }
  }

  /** Reads a record. A lapsed task is ended first; a forgotten one is removed by that. */
  read(id: string, now: number): TaskRecord | undefined {
    const row = this.find(id, now)
    if (row === undefined) return undefined
    const current = this.endLapsed(row, now) === undefined ? row : this.find(id, now)
    return current === undefined ? undefined : TaskRow.toRecord(current)
  }

  readHistory(id: string, now: number): string | undefined {
    return this.find(id, now)?.history
  }

  cancel(id: string, now: number): CancelAnswer {
    const row = this.find(id, now)
    if (row === undefined) return "Unknown"
    const decision = Transitions.decideCancel(row, now)
    if (decision === "AlreadyDone") return decision
    if (decision === "Request") {
      row.cancelRequested = true
      this.schedule(row)
      this.hints.notify(id)
      return "Requested"
    }
    this.end(row, decision, now)
    return decision === "Cancelled" ? "Cancelled" : "AlreadyDone"
  }

  withdraw(message: PurgedMessage, now: number): void {
    const row = this.find(message.id, now)
    const decision = Transitions.decideWithdraw(row, message, now)
    if (row === undefined || decision === "Nothing") return
    if (decision !== "Mark") return this.end(row, decision, now)
    row.withdrawn = true
    this.schedule(row)
  }

  forget(id: string, now: number): void {
    const row = this.find(id, now)
    if (row === undefined) return
    if (Transitions.decideForget(row) === "Remove") return this.remove(row)
    this.freeKey(row)
    row.ended = "Forgotten"
    this.hints.notifyChange(id)
  }

  reopen(deadLetterId: string, reservedMillis: number, now: number): Reopened | undefined {
    const stored = this.deadLetters.get(deadLetterId, now)
    if (stored === undefined) return undefined
    const { letter } = stored
    const { generation, incarnation, queue, task, taskId } = letter
    if (taskId === null || task === null) return { letter, replayable: true }
    const existing = this.find(taskId, now)
    const decision = Transitions.decideReopen(existing, letter)
    const reservedUntil = now + reservedMillis
    if (decision === "Leave" || decision === "Refuse") return { letter, replayable: decision === "Leave" }
    if (decision === "Renew") {
      if (existing !== undefined) this.renewReservation(existing, reservedUntil)
      return { letter, replayable: true }
    }
    const row = existing ?? {
      ...TaskRow.make({ id: taskId, task, incarnation, queue }, generation, now),
      fence: stored.fence,
      retention: stored.taskRetention
    }
    TaskRow.openGeneration(row, generation + 1, now)
    row.reservedUntil = reservedUntil
    this.add(row)
    return { letter, replayable: true }
  }

  /** Ends or removes up to `limit` rows whose deadline has passed. */
  sweep(limit: number, now: number): Swept {
    const lost: Array<string> = []
    let handled = 0
    for (; handled < limit; handled++) {
      const row = this.deadlines.peek()
      if (row === undefined || row.deadline > now) break
      const ended = this.endLapsed(row, now)
      if (ended === undefined) this.remove(row)
      else if (ended === "WorkerLost") lost.push(row.task)
    }
    return { handled, lost }
  }

  /** Returns a row whose retention is not over. */
  private find(id: string, now: number): Row | undefined {
    const row = this.rows.get(id)
    if (row === undefined || row.finishedAt === null || row.deadline > now) return row
    this.remove(row)
    return undefined
  }

  private add(row: Row): void {
    this.rows.set(row.id, row)
    this.schedule(row)
    this.hints.notifyChange(row.id)
  }

  private compare(row: Row, record: NewRecord, key: string | undefined, now: number): Created {
    const { adopts, same } = Transitions.decideCreate(row, record)
    if (adopts) {
      row.payloadHash = record.payloadHash
      if (key !== undefined && row.key === undefined) this.reserveKey(row, key)
    }
    const published = row.reservedUntil === undefined
    // E4
    if (same && record.reservedMillis !== undefined) this.renewReservation(row, now + record.reservedMillis)
    const { generation, id, incarnation } = row
    return { _tag: "Existing", id, incarnation, generation, same, published }
  }

  /** Keeps a row for at least as long, if it is a reservation (E4, R5). */
  private renewReservation(row: Row, reservedUntil: number): void {
    if (row.reservedUntil === undefined) return
    row.reservedUntil = Math.max(row.reservedUntil, reservedUntil)
    this.schedule(row)
  }

  private openRun(row: Row, request: Start, now: number): void {
    row.state = "STARTED"
    row.attempt += 1
    row.fence += 1
    row.worker = request.worker
    // the clock may have been set back
    row.startedAt ??= Math.max(now, row.enqueuedAt)
    row.reservedUntil = undefined
    row.retention = request.retentionMillis
    row.deadLetterRetention = request.deadLetterRetentionMillis
    row.token = request.token
    row.leaseUntil = now + request.leaseMillis
    row.atMostOnce = request.deliveryMode === "at-most-once"
    row.message = row.atMostOnce ? { queue: request.queue, body: request.body } : undefined
    row.dueAt = null
    this.changed(row)
  }

  /** Writes the outcome of the open run. */
  private write(row: Row, outcome: Outcome, now: number): void {
    switch (outcome._tag) {
      case "Success": {
        row.retention = outcome.retentionMillis
        return this.finish(row, now, { state: "SUCCESS", exit: outcome.exit, ended: null })
      }
      case "Failure": {
        const { deadLetter, exit } = outcome
        row.retention = outcome.retentionMillis
        if (deadLetter !== undefined) {
          this.addDeadLetter(row, deadLetter, now, { ...deadLetter, exit })
        }
        return this.finish(row, now, { state: "FAILURE", exit, ended: null })
      }
      case "Retry":
        row.retries += 1
        if (outcome.failure !== undefined) {
          row.history = ((row.history ?? "") + outcome.failure).slice(-maxHistorySize)
        }
        row.dueAt = now + outcome.afterMillis
        return this.wait(row)
      case "Release":
        row.attempt -= 1
        row.dueAt = null
        return this.wait(row)
    }
  }

  private wait(row: Row): void {
    row.state = Transitions.stateAfterRetries(row.retries)
    TaskRow.closeRun(row)
    this.changed(row)
  }

  /** Ends a task by time or by request. A `WorkerLost` leaves a dead letter. */
  private end(row: Row, ended: Transitions.ForcedEnd, now: number, message?: Message): void {
    const lost = row.message ?? message
    if (ended === "WorkerLost" && lost !== undefined) {
      const retentionMillis = row.deadLetterRetention
      this.addDeadLetter(row, lost, now, { reason: "WorkerLost", exit: null, retentionMillis })
    }
    row.token = null
    this.onEnded(row.id)
    this.finish(row, now, { state: "FAILURE", exit: null, ended })
  }

  /** Ends a task whose time is over, and returns how it ended; `undefined` if it goes on. */
  private endLapsed(row: Row, now: number): Transitions.ForcedEnd | undefined {
    const ended = Transitions.lapse(row, now)
    if (ended !== undefined) this.end(row, ended, now)
    return ended
  }

  /** Writes the terminal state. A forgotten task is removed instead (F3). */
  private finish(row: Row, now: number, end: Pick<TaskRecord, "state" | "exit" | "ended">): void {
    TaskRow.closeRun(row)
    if (row.ended === "Forgotten") return this.remove(row)
    Object.assign(row, end)
    row.dueAt = null
    row.finishedAt = now
    this.changed(row)
  }

  private addDeadLetter(
    row: Row,
    { body, queue }: Message,
    now: number,
    why: {
      readonly reason: string
      readonly exit: string | null
      readonly retentionMillis: number | undefined
    }
  ): void {
    const { attempt: attempts, generation, incarnation, task, worker } = row
    const { exit, reason } = why
    const id = deadLetterId(row.id, row)
    this.deadLetters.add(
      {
        id,
        taskId: row.id,
        task,
        incarnation,
        generation,
        queue,
        reason,
        exit,
        worker,
        body,
        attempts,
        at: now
      },
      why.retentionMillis,
      row
    )
  }

  private remove(row: Row): void {
    this.deadlines.remove(row)
    this.rows.delete(row.id)
    this.freeKey(row)
    this.hints.notifyChange(row.id)
  }

  private reserveKey(row: Row, key: string): void {
    row.key = key
    this.keys.set(key, row.id)
  }

  private freeKey(row: Row): void {
    if (row.key !== undefined) this.keys.delete(row.key)
    row.key = undefined
  }

  private changed(row: Row): void {
    this.schedule(row)
    this.hints.notifyChange(row.id)
  }

  private schedule(row: Row): void {
    this.deadlines.remove(row)
    row.deadline = TaskRow.deadlineOf(row)
    if (row.deadline === Infinity) return
    this.deadlines.push(row)
    this.onDue(row.deadline)
  }
}
